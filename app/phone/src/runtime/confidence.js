/**
 * From the statistics of one answer to the probability that it is right. Port of `symptomchat/runtime/confidence.py`.
 *
 * In: what the forward pass computed, in single precision like there. Out: features, and one probability.
 */

import constants from "../constants.js";

/** Names of the calibrator's inputs, in order. */
export const FEATURES = constants.features;

/**
 * Features of one question, in the order of `FEATURES`.
 *
 * @param {Float32Array} probabilities `[C]`, the first that of none
 * @param {number} novelty one minus the highest cosine with anything learned
 * @param {number} unknown share of pieces outside the vocabulary
 * @param {number} pieces length of the question in tokens
 */
export function statistics(probabilities, novelty, unknown, pieces) {
  let first = 0;
  let second = 0;
  let entropy = 0;
  probabilities.forEach((p, at) => {
    entropy -= p * Math.log(p + 1e-12);
    if (at === 0) return;
    if (p > first) [first, second] = [p, first];
    else if (p > second) second = p;
  });
  return [
    logOdds(first),
    Math.log((first + 1e-6) / (second + 1e-6)),
    entropy,
    logOdds(probabilities[0]),
    novelty,
    unknown,
    Math.log1p(pieces),
  ];
}

function logOdds(p) {
  const inside = Math.min(Math.max(p, 1e-6), 1 - 1e-6);
  return Math.log(inside / (1 - inside));
}

/** Temperature for the ranking, logistic regression for the confidence, and the thresholds, of `confidence.json`. */
export class Calibrator {
  constructor(values) {
    for (const name of ["mean", "scale", "weights"]) {
      if (!Array.isArray(values[name]) || values[name].length !== FEATURES.length) throw new TypeError(name);
    }
    for (const name of ["temperature", "bias", "threshold", "risk", "novelty_limit", "set_limit"]) {
      if (!Number.isFinite(values[name])) throw new TypeError(name);
    }
    this.temperature = values.temperature;
    this.mean = values.mean;
    this.scale = values.scale;
    this.weights = values.weights;
    this.bias = values.bias;
    this.threshold = values.threshold;
    this.risk = values.risk;
    this.noveltyLimit = values.novelty_limit;
    this.setLimit = values.set_limit;
    this.thresholds = Object.entries(values.thresholds)
      .map(([risk, threshold]) => [Number(risk), Number(threshold)])
      .sort((a, b) => a[0] - b[0]);
  }

  /** Threshold of the largest calibrated risk that does not exceed the one asked for. */
  thresholdFor(risk) {
    if (!(risk > 0 && risk < 1)) throw new RangeError(`risk ${risk}: must lie between 0 and 1`);
    const fitting = this.thresholds.filter(([known]) => known <= risk + 1e-9);
    if (!fitting.length) {
      const least = this.thresholds.length ? this.thresholds[0][0] : 1;
      throw new RangeError(`risk ${risk}: the smallest that this bundle is calibrated for is ${least}`);
    }
    return fitting[fitting.length - 1][1];
  }

  /** Temperature scaling of a distribution `[C]`. */
  soften(probabilities) {
    const logits = Float32Array.from(probabilities, (p) => Math.fround(Math.log(Math.max(p, 1e-12))) / this.temperature);
    const highest = logits.reduce((a, b) => Math.max(a, b));
    const raised = logits.map((logit) => Math.exp(logit - highest));
    const sum = raised.reduce((a, b) => a + b, 0);
    return raised.map((value) => value / sum);
  }

  /** Probability that the first condition is right, 0–1. */
  confidence(features) {
    const z = features.reduce(
      (sum, value, at) => sum + ((value - this.mean[at]) / this.scale[at]) * this.weights[at],
      this.bias,
    );
    return 1 / (1 + Math.exp(-z));
  }
}
