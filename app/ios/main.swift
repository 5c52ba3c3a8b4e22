/// Asks a bundle from a command line, and holds this port against Python.
///
///     symptomchat BUNDLE CONSTANTS "my chest hurts"              prints an answer
///     symptomchat BUNDLE CONSTANTS --reference FILE --output FILE  answers the questions of a reference.json
///     symptomchat BUNDLE CONSTANTS --texts FILE --output FILE      token ids, own clauses, red flags … of texts
import Foundation

func show(_ answer: Answer) {
  for flag in answer.redFlags { print("EMERGENCY: \(flag.name): \(flag.advice)") }
  if answer.alarmed { print("This sounds like an emergency.") }
  for condition in answer.conditions.prefix(3) { print(String(format: "%5.1f %%  ", 100 * condition.probability) + condition.name) }
  print("confidence: \(answer.confidence)\(answer.flagged ? ", may be made up" : "")")
  print("urgency: \(answer.triage)")
  for claim in answer.symptoms + answer.treatments { print("- \(claim.text)\(claim.grounded ? "" : " (not in the sources)")") }
}

func entry(_ text: String, _ ids: [Int], _ answer: Answer) -> [String: Any] {
  func claims(_ items: [Claim]) -> [[String: Any]] {
    items.map { ["text": $0.text, "confidence": $0.confidence, "grounded": $0.grounded] }
  }
  return [
    "text": text, "ids": ids, "intent": answer.intent, "triage": answer.triage,
    "conditions": answer.conditions.prefix(3).map { ["name": $0.name, "probability": $0.probability] as [String: Any] },
    "symptoms": claims(answer.symptoms), "treatments": claims(answer.treatments),
    "red_flags": answer.redFlags.map(\.name), "confidence": answer.confidence, "flagged": answer.flagged,
  ]
}

func reading(_ text: String, _ assistant: Assistant) -> [String: Any] {
  [
    "ids": assistant.grammar.question(text), "own": assistant.patient.own(text), "red_flags": assistant.redFlags.check(text).map(\.name),
    "alarm": assistant.alarm.probability(text), "named": assistant.named(text) ?? NSNull(),
    "unknown": assistant.unknownName(text) ?? NSNull(),
  ]
}

do {
  let given = CommandLine.arguments
  let assistant = try Assistant(folder: URL(fileURLWithPath: given[1]), constants: URL(fileURLWithPath: given[2]))
  if given.count == 4 {
    show(try assistant.ask(given[3]))
  } else {
    let file = URL(fileURLWithPath: given[4])
    let entries: [[String: Any]]
    if given[3] == "--reference" {
      let texts: [String] = try (readObject(file).get("questions") as [[String: Any]]).map { try $0.get("text") }
      entries = try texts.map { entry($0, assistant.encode($0), try assistant.ask($0)) }
    } else {
      let texts = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String] ?? []
      entries = texts.map { reading($0, assistant) }
    }
    try JSONSerialization.data(withJSONObject: entries).write(to: URL(fileURLWithPath: given[6]))
  }
} catch {
  FileHandle.standardError.write(Data("error: \(error)\n".utf8))
  exit(2)
}
