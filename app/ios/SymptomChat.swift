/// SymptomChat for iOS: a bundle and a question in, an answer out. One file, no network; docs/ios.md explains it.
///
/// Needs the Swift package LiteRT and Apple's Foundation and CryptoKit. Port of symptomchat/runtime and
/// symptomchat/language; what differs by language is said where it does. Not safe for use from two threads at a time.
import Foundation
import LiteRT

#if canImport(CryptoKit)
  import CryptoKit
#endif

/// Bad input or a bad bundle, in one line.
public struct SymptomChatError: Error, CustomStringConvertible {
  public let description: String
  init(_ description: String) { self.description = description }
}

typealias Object = [String: Any]

extension Dictionary where Key == String, Value == Any {
  /// A value of a JSON object, of the type that is asked for.
  func get<T>(_ name: String) throws -> T {
    guard let value = self[name] as? T else { throw SymptomChatError("\(name): is missing or of another type; make the bundle again") }
    return value
  }

  /// Texts that stand in one string with `|` between them, or in a list.
  func texts(_ name: String) throws -> [String] { try parted(get(name) as Any) }

  func number(_ name: String) throws -> Double { try (get(name) as NSNumber).doubleValue }
  func numbers(_ name: String) throws -> [Double] { try (get(name) as [NSNumber]).map(\.doubleValue) }
}

/// Texts that stand in one string with `|` between them, or in a list.
func parted(_ joined: Any) throws -> [String] {
  if let list = joined as? [String] { return list }
  guard let text = joined as? String else { throw SymptomChatError("knowledge.json: is of another version; make the bundle again") }
  return text.isEmpty ? [] : text.components(separatedBy: "|")
}

private let run = Pattern("[\\p{L}\\p{N}]+")

private let lastSigma = Pattern("(?<=\\p{L})Σ(?!\\p{L})")

/// Lower case with the form of a sigma at the end of a word, as Python has it; not every `lowercased()` knows it.
private func lowered(_ text: String) -> String { lastSigma.replaced(text, with: "ς").lowercased() }

/// Lower-case words without punctuation.
private func wordsOf(_ text: String) -> [String] { run.found(lowered(text)) }

/// The words of a text with one blank between them.
private func normal(_ text: String) -> String { wordsOf(text).joined(separator: " ") }

func readObject(_ url: URL) throws -> Object {
  guard let value = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? Object else {
    throw SymptomChatError("\(url.path): holds no JSON object; make the bundle again")
  }
  return value
}

/// A regular expression over the UTF-16 text that NSRegularExpression works on.
struct Pattern {
  private let expression: NSRegularExpression

  /// A Python pattern: words hold letters of every language, and `$` matches before a line feed at the end.
  init(python pattern: String, ignoreCase: Bool = false) throws {
    let text = pattern.replacingOccurrences(of: "[^\\W_]", with: "[\\p{L}\\p{N}]")
      .replacingOccurrences(of: "[\\w-]", with: "[\\p{L}\\p{N}_-]").replacingOccurrences(of: "\\w", with: "[\\p{L}\\p{N}_]")
      .replacingOccurrences(of: "\\W", with: "[^\\p{L}\\p{N}_]").replacingOccurrences(of: "$", with: "(?=\\n?\\z)")
    expression = try NSRegularExpression(pattern: text, options: ignoreCase ? [.caseInsensitive] : [])
  }

  init(_ pattern: String) { expression = try! NSRegularExpression(pattern: pattern) }

  func ranges(_ text: String) -> [NSRange] { matches(text).map(\.range) }
  func found(_ text: String) -> [String] { ranges(text).map { (text as NSString).substring(with: $0) } }
  func occurs(_ text: String) -> Bool { expression.firstMatch(in: text, range: whole(text)) != nil }

  /// The first group of the first match that holds something.
  func group(_ text: String) -> String? {
    guard let match = expression.firstMatch(in: text, range: whole(text)) else { return nil }
    return (1..<match.numberOfRanges).lazy.map { match.range(at: $0) }.first { $0.location != NSNotFound && $0.length > 0 }
      .map { (text as NSString).substring(with: $0) }
  }

  /// The text with each match replaced by its first group.
  func firstGroups(_ text: String) -> String {
    expression.stringByReplacingMatches(in: text, range: whole(text), withTemplate: "$1")
  }

  /// The text with each match replaced by a text without `$` and `\`.
  func replaced(_ text: String, with other: String) -> String {
    expression.stringByReplacingMatches(in: text, range: whole(text), withTemplate: other)
  }

  private func whole(_ text: String) -> NSRange { NSRange(location: 0, length: (text as NSString).length) }
  private func matches(_ text: String) -> [NSTextCheckingResult] { expression.matches(in: text, range: whole(text)) }
}

// MARK: - Tokenizer

private func isSpace(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isWhitespace }

private func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
  switch scalar.value {
  case 33...47, 58...64, 91...96, 123...126: return true
  default: break
  }
  switch scalar.properties.generalCategory {
  case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation,
    .finalPunctuation, .otherPunctuation:
    return true
  default: return false
  }
}

private func isOther(_ scalar: Unicode.Scalar) -> Bool {
  switch scalar.properties.generalCategory {
  case .control, .format, .surrogate, .privateUse, .unassigned: return true
  default: return false
  }
}

private func isChinese(_ scalar: Unicode.Scalar) -> Bool {
  switch scalar.value {
  case 0x4E00...0x9FFF, 0x3400...0x4DBF, 0x20000...0x2A6DF, 0x2A700...0x2B73F, 0x2B740...0x2B81F, 0x2B920...0x2CEAF,
    0xF900...0xFAFF, 0x2F800...0x2FA1F:
    return true
  default: return false
  }
}

private func trimmed(_ text: String) -> String {
  var scalars = Substring(text).unicodeScalars
  while let first = scalars.first, isSpace(first) { scalars.removeFirst() }
  while let last = scalars.last, isSpace(last) { scalars.removeLast() }
  return String(scalars)
}

/// WordPiece of tokenizer.json: BertNormalizer, BertPreTokenizer, longest match first.
final class WordPiece {
  private let vocabulary: [String: Int]
  private let added: [String: Int]
  private let prefix: String
  private let longest: Int
  let unknown: Int
  let size: Int
  /// Words that the vocabulary holds in one piece: they are no misspellings of others.
  let wholeWords: Set<String>

  init(_ spec: Object) throws {
    let model: Object = try spec.get("model")
    let normalizer: Object = try spec.get("normalizer")
    guard try model.get("type") == "WordPiece", try normalizer.get("type") == "BertNormalizer" else {
      throw SymptomChatError("tokenizer.json: is not a WordPiece tokenizer with a BertNormalizer")
    }
    vocabulary = try (model.get("vocab") as [String: NSNumber]).mapValues(\.intValue)
    prefix = try model.get("continuing_subword_prefix")
    longest = try Int(model.number("max_input_chars_per_word"))
    var marks: [String: Int] = [:]
    for token in try spec.get("added_tokens") as [Object] { marks[try token.get("content")] = try Int(token.number("id")) }
    added = marks
    guard let unknownId = vocabulary[try model.get("unk_token")] else { throw SymptomChatError("tokenizer: has no unknown token") }
    unknown = unknownId
    let all = Set(vocabulary.keys).union(marks.keys)
    size = all.count
    wholeWords = all.filter { $0.unicodeScalars.allSatisfy { $0.properties.generalCategory.isLetter } }
  }

  func id(_ token: String) throws -> Int {
    guard let id = added[token] ?? vocabulary[token] else { throw SymptomChatError("tokenizer: token \(token) is missing") }
    return id
  }

  /// Ids of a text, without marks around it. Marks of the grammar never get here: see `Grammar.pieces`.
  func encode(_ text: String) -> [Int] { words(normalize(text)).flatMap(cut) }

  /// Control characters go, every white space becomes a blank, Chinese characters stand alone, accents go.
  private func normalize(_ text: String) -> String.UnicodeScalarView {
    var clean = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      let tabOrLine = [9, 10, 13].contains(scalar.value)
      if scalar.value == 0 || scalar.value == 0xFFFD || (!tabOrLine && isOther(scalar)) { continue }
      if isSpace(scalar) {
        clean.append(" ")
      } else if isChinese(scalar) {
        clean.append(contentsOf: [" ", scalar, " "])
      } else {
        clean.append(scalar)
      }
    }
    var plain = String.UnicodeScalarView()
    for scalar in String(clean).decomposedStringWithCanonicalMapping.unicodeScalars
    where scalar.properties.generalCategory != .nonspacingMark {
      // Letter by letter: the tokenizer does not know the form of a sigma at the end of a word.
      plain.append(contentsOf: scalar.properties.lowercaseMapping.unicodeScalars)
    }
    return plain
  }

  /// Words between white space; each punctuation mark is a word of its own.
  private func words(_ text: String.UnicodeScalarView) -> [[Unicode.Scalar]] {
    var found: [[Unicode.Scalar]] = []
    var word: [Unicode.Scalar] = []
    func close() {
      if !word.isEmpty { found.append(word) }
      word = []
    }
    for scalar in text {
      if isSpace(scalar) {
        close()
      } else if isPunctuation(scalar) {
        close()
        found.append([scalar])
      } else {
        word.append(scalar)
      }
    }
    close()
    return found
  }

  private func cut(_ word: [Unicode.Scalar]) -> [Int] {
    if word.count > longest { return [unknown] }
    var ids: [Int] = []
    var begin = 0
    while begin < word.count {
      var end = word.count
      var id: Int?
      while end > begin {
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: word[begin..<end])
        id = vocabulary[begin == 0 ? String(scalars) : prefix + String(scalars)]
        if id != nil { break }
        end -= 1
      }
      guard let piece = id else { return [unknown] }
      ids.append(piece)
      begin = end
    }
    return ids
  }
}

extension Unicode.GeneralCategory {
  fileprivate var isLetter: Bool {
    switch self {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: return true
    default: return false
    }
  }
}

/// One exchange: `[CLS] question [SEP] <c:condition> <ask:intent> item [;] item [treatments] item … [end]`.
public final class Grammar {
  private let tokenizer: WordPiece
  private let questionTokens: Int
  private let user, answer: Int
  private let intents: [Int: String]
  let item, treatments, end, none, conditions: Int
  var intentIds: [(name: String, token: Int)] { intents.sorted { $0.key < $1.key }.map { (name: $0.value, token: $0.key) } }

  init(_ tokenizer: WordPiece, _ constants: Object, questionTokens: Int) throws {
    let marks: [String: String] = try constants.get("marks")
    func id(_ name: String) throws -> Int { try tokenizer.id(marks[name] ?? name) }
    self.tokenizer = tokenizer
    self.questionTokens = questionTokens
    (user, answer) = (try id("user"), try id("answer"))
    (item, treatments) = (try id("item"), try id("treatments"))
    (end, none) = (try id("end"), try id("none"))
    var named: [Int: String] = [:]
    for (name, token) in try constants.get("intents") as [String: String] { named[try tokenizer.id(token)] = name }
    intents = named
    conditions = tokenizer.size - none
  }

  /// Ids of a text; marks of the grammar typed by a user are plain text, never tokens.
  func pieces(_ text: String) -> [Int] {
    tokenizer.encode(
      text.replacingOccurrences(of: "[", with: "[ ", options: .literal)
        .replacingOccurrences(of: "<c:", with: "< c:", options: .literal)
        .replacingOccurrences(of: "<ask:", with: "< ask:", options: .literal))
  }

  /// A text that is too long keeps its beginning and its end.
  public func question(_ text: String) -> [Int] {
    let ids = pieces(text)
    let room = questionTokens - 2
    let head = room * 2 / 3
    return [user] + (ids.count > room ? ids.prefix(head) + ids.suffix(room - head) : ids[...]) + [answer]
  }

  func unknownShare(_ ids: [Int]) -> Double {
    let inner = ids.dropFirst().dropLast()
    return inner.isEmpty ? 1 : Double(inner.filter { $0 == tokenizer.unknown }.count) / Double(inner.count)
  }

  /// What an answer's first token says is asked for.
  func intent(_ token: Int) -> String { intents[token] ?? "none" }
}

// MARK: - Decoding

/// Entries by their token ids; node 0 is the root. Of two with the same ids the first counts.
struct Trie {
  private var rows: [[Int: Int]] = [[:]]
  /// Text of the entry that is complete at a node.
  private(set) var text: [Int: String] = [:]
  /// Nodes of an entry from the root to the one where it is complete.
  private(set) var paths: [String: [Int]] = [:]
  /// Number of entries at or below each node.
  private(set) var count: [Int] = []

  init(_ entries: [(text: String, ids: [Int])]) {
    for entry in entries where !entry.ids.isEmpty && paths[entry.text] == nil {
      var path = [0]
      var node = 0
      for token in entry.ids {
        if let next = rows[node][token] {
          node = next
        } else {
          rows[node][token] = rows.count
          node = rows.count
          rows.append([:])
        }
        path.append(node)
      }
      if text[node] == nil { text[node] = entry.text }
      paths[entry.text] = path
    }
    count = Array(repeating: 0, count: rows.count)
    for entry in text.values { for node in paths[entry] ?? [] { count[node] += 1 } }
  }

  /// Tokens that go on from a node, each with the node that it leads to; sorted, so that a tie is broken as in Python.
  func children(_ node: Int) -> [(token: Int, node: Int)] {
    rows[node].sorted { $0.key < $1.key }.map { (token: $0.key, node: $0.value) }
  }

  func child(_ node: Int, _ token: Int) -> Int? { rows[node][token] }
}

/// The findings and the treatments that an answer may name, with the limits of constants.json.
struct Vocabulary {
  let grammar: Grammar
  let tries: [Trie]
  let bonus: Float
  let most: [Int]
  let full: Int

  init(_ grammar: Grammar, _ values: Object, _ parts: [[String]]) throws {
    self.grammar = grammar
    tries = parts.map { texts in
      var seen: Set<String> = []
      return Trie(texts.filter { seen.insert($0).inserted }.map { (text: $0, ids: grammar.pieces($0)) })
    }
    bonus = try Float(values.number("bonus"))
    most = try values.numbers("most").map { Int($0) }
    full = try Int(values.number("full"))
  }
}

/// What one answer has said, and how it may go on: docs/format.md, "Decoding".
final class Guide {
  /// An entry that the answer has named, and the places of its tokens behind the condition token.
  struct Entry {
    let part: Int
    let text: String
    let span: Range<Int>
  }

  private(set) var named: [Entry] = []
  private let vocabulary: Vocabulary
  private let grammar: Grammar
  private let intents: [Int]
  /// Who asks for the treatment gets no findings first.
  private let skips: Bool
  /// Nodes where an entry of the record is complete.
  private let own: [Set<Int>]
  /// At each node, how many entries are not named yet: of all, and of the record.
  private var left, wanted: [[Int]]
  private var part = 0
  private var path = [0]
  private var at = 0
  private var begin = 0

  /// - Parameters:
  ///   - parts: findings and treatments of the answer's condition.
  ///   - asked: the intent of a question by name.
  init(_ vocabulary: Vocabulary, _ parts: [[String]], asked: String?) {
    self.vocabulary = vocabulary
    grammar = vocabulary.grammar
    intents = grammar.intentIds.filter { asked == nil || $0.name == asked }.map(\.token)
    skips = asked == "treatment" && !parts[1].isEmpty
    left = vocabulary.tries.map(\.count)
    var ends: [Set<Int>] = []
    var counts: [[Int]] = []
    for (trie, texts) in zip(vocabulary.tries, parts) {
      // Two names of one entry end at one node and count once.
      let here = Set(texts.compactMap { trie.paths[$0]?.last })
      var row = Array(repeating: 0, count: trie.count.count)
      for end in here { for node in trie.paths[trie.text[end]!]! { row[node] += 1 } }
      ends.append(here)
      counts.append(row)
    }
    own = ends
    wanted = counts
  }

  private var last: Int { path[path.count - 1] }

  /// The entry that is complete here and was not named before.
  private var complete: String? {
    guard let text = vocabulary.tries[part].text[last] else { return nil }
    return named.contains { $0.part == part && $0.text == text } ? nil : text
  }

  /// Tokens that may follow, each with what is added to its logit.
  private func options() -> [(token: Int, gain: Float)] {
    if at == 0 { return intents.map { (token: $0, gain: 0) } }
    if at == 1 && skips { return [(token: grammar.treatments, gain: 0)] }
    var found: [(token: Int, gain: Float)] = []
    for (token, node) in vocabulary.tries[part].children(last) where left[part][node] > 0 {
      found.append((token: token, gain: wanted[part][node] > 0 ? vocabulary.bonus : 0))
    }
    return found + marks()
  }

  private func marks() -> [(token: Int, gain: Float)] {
    let done = complete != nil
    if !done && path.count > 1 { return [] }
    let mine = done && own[part].contains(last)
    let gain = mine ? vocabulary.bonus : 0
    let less = gain - vocabulary.bonus
    var found: [(token: Int, gain: Float)] = []
    let count = named.filter { $0.part == part }.count + 1
    let room = count < vocabulary.most[part] && !(part == 0 && at > vocabulary.full)
    if done && left[part][0] > 1 && room {
      found.append((token: grammar.item, gain: wanted[part][0] > (mine ? 1 : 0) ? gain : less))
    }
    if part == 0 && left[1][0] > 0 { found.append((token: grammar.treatments, gain: wanted[1][0] > 0 ? gain : less)) }
    // Without any entry there is nothing to say but the end.
    if done || left[part][0] == 0 { found.append((token: grammar.end, gain: gain)) }
    return found
  }

  /// Go on with the token of the highest logit after the gains, and return it.
  func choose(_ logits: [Float]) -> Int {
    var token = grammar.end
    var highest = -Float.infinity
    for option in options() where logits[option.token] + option.gain > highest {
      token = option.token
      highest = logits[option.token] + option.gain
    }
    if at > 0, let node = vocabulary.tries[part].child(last, token) {
      path.append(node)
    } else {
      close()
      if token == grammar.treatments { part = 1 }
      path = [0]
      begin = at + 1
    }
    at += 1
    return token
  }

  /// Note the entry that is complete here; it is not named again.
  private func close() {
    guard let text = complete else { return }
    named.append(Entry(part: part, text: text, span: begin..<at))
    for node in path { left[part][node] -= 1 }
    if own[part].contains(last) { for node in path { wanted[part][node] -= 1 } }
  }
}

// MARK: - Engine

/// The signatures `prefill` and `decode` of the .tflite, on the processor.
final class Engine {
  /// One signature with its buffers by name; the order in which LiteRT lists them is its own.
  private final class Runner {
    private let model: CompiledModel
    private let index: Int
    private let inputNames, outputNames: [String]
    private let inputBuffers, outputBuffers: [TensorBuffer]
    let inputs, outputs: [String: TensorBuffer]

    init(_ model: CompiledModel, _ index: Int) throws {
      self.model = model
      self.index = index
      inputNames = try (0..<model.inputCount(signatureIndex: index)).map { try model.inputName(inputIndex: $0, signatureIndex: index) }
      outputNames = try (0..<model.outputCount(signatureIndex: index)).map { try model.outputName(outputIndex: $0, signatureIndex: index) }
      inputBuffers = try model.createInputBuffers(signatureIndex: index)
      outputBuffers = try model.createOutputBuffers(signatureIndex: index)
      inputs = Dictionary(uniqueKeysWithValues: zip(inputNames, inputBuffers))
      outputs = Dictionary(uniqueKeysWithValues: zip(outputNames, outputBuffers))
    }

    func run() throws { try model.run(inputs: inputBuffers, outputs: outputBuffers, signatureIndex: index) }

    func write<T>(_ name: String, _ values: [T]) throws {
      guard let buffer = inputs[name] else { throw SymptomChatError("model: has no input \(name)") }
      try buffer.write(values)
    }

    func floats(_ name: String) throws -> [Float] {
      guard let buffer = outputs[name] else { throw SymptomChatError("model: has no output \(name)") }
      return try buffer.read()
    }
  }

  struct Token {
    let id: Int
    let logProbability: Double
  }

  private let prefiller, decoder: Runner
  let questionTokens: Int
  private let answerTokens: Int

  init(_ url: URL) throws {
    let options = try Options()
    try options.setHardwareAccelerators([.cpu])
    let model = try CompiledModel(filePath: url.path, environment: Environment(), options: options)
    // A signature is run by its place, and the file's order is not promised: each is known by its tensors.
    let runners = try (0..<3).map { try Runner(model, $0) }
    guard let prefill = runners.first(where: { $0.inputs["tokens"] != nil && $0.outputs["k_0"] != nil }),
      let decode = runners.first(where: { $0.inputs["step"] != nil }),
      let tokens = prefill.inputs["tokens"], let asked = decode.inputs["k_0"], let told = decode.inputs["ka_0"]
    else { throw SymptomChatError("\(url.path): is not a SymptomChat model file; copy the bundle again") }
    (prefiller, decoder) = (prefill, decode)
    questionTokens = tokens.size / 4
    answerTokens = told.size / (asked.size / questionTokens)
  }

  /// Run a question into the decoder's cache; `generate` goes on from there.
  func prefill(_ ids: [Int]) throws -> (probabilities: [Double], novelty: Double) {
    guard (1...questionTokens).contains(ids.count) else { throw SymptomChatError("a question has 1 to \(questionTokens) tokens") }
    try prefiller.write("tokens", ids.map(Int32.init) + Array(repeating: 0, count: questionTokens - ids.count))
    try prefiller.write("length", [Int32(ids.count)])
    try prefiller.run()
    for name in prefiller.outputs.keys where name.hasPrefix("k_") || name.hasPrefix("v_") {
      try decoder.write(name, prefiller.floats(name))
    }
    return (try prefiller.floats("probabilities").map(Double.init), Double(try prefiller.floats("novelty")[0]))
  }

  /// Greedy decoding after a condition token; the guide chooses, the log-probability is that among all tokens.
  func generate(length: Int, condition: Int, end: Int, guide: Guide) throws -> [Token] {
    let answers = decoder.outputs.keys.filter { $0.hasPrefix("ka_") || $0.hasPrefix("va_") }
    for name in answers { try decoder.write(name, Array(repeating: Float(0), count: decoder.inputs[name]!.size / 4)) }
    try decoder.write("length", [Int32(length)])
    var tokens: [Token] = []
    var token = condition
    while tokens.count < answerTokens {
      try decoder.write("token", [Int32(token)])
      try decoder.write("step", [Int32(tokens.count)])
      try decoder.run()
      let row = try decoder.floats("logits")
      for name in answers { try decoder.write(name, decoder.floats(name)) }
      token = guide.choose(row)
      let highest = Double(row.max() ?? 0)
      let sum = row.reduce(0.0) { $0 + exp(Double($1) - highest) }
      tokens.append(Token(id: token, logProbability: Double(row[token]) - highest - log(sum)))
      if token == end { break }
    }
    return tokens
  }
}

// MARK: - Confidence

/// confidence.json: temperature for the ranking, logistic regression for the confidence, thresholds of the flag.
struct Calibrator {
  private let temperature, bias: Double
  private let mean, scale, weights: [Double]
  let threshold: Double

  init(_ values: Object) throws {
    temperature = try values.number("temperature")
    bias = try values.number("bias")
    mean = try values.numbers("mean")
    scale = try values.numbers("scale")
    weights = try values.numbers("weights")
    threshold = try values.number("threshold")
  }

  private func logOdds(_ p: Double) -> Double {
    let inside = min(max(p, 1e-6), 1 - 1e-6)
    return log(inside / (1 - inside))
  }

  /// Features in the order of `features`: top, margin, entropy, none, novelty, unknown, length.
  func features(_ probabilities: [Double], novelty: Double, unknown: Double, pieces: Int) -> [Double] {
    let known = probabilities.dropFirst().sorted(by: >)
    let second = known.count > 1 ? known[1] : 0
    return [
      logOdds(known[0]), log((known[0] + 1e-6) / (second + 1e-6)), -probabilities.reduce(0) { $0 + $1 * log($1 + 1e-12) },
      logOdds(probabilities[0]), novelty, unknown, log1p(Double(pieces)),
    ]
  }

  func confidence(_ features: [Double]) -> Double {
    let z = features.indices.reduce(bias) { $0 + (features[$1] - mean[$1]) / scale[$1] * weights[$1] }
    return 1 / (1 + exp(-z))
  }

  /// The probabilities that are shown: the logarithms are divided by the temperature.
  func soften(_ probabilities: [Double]) -> [Double] {
    let logits = probabilities.map { log(max($0, 1e-12)) / temperature }
    let highest = logits.max() ?? 0
    let raised = logits.map { exp($0 - highest) }
    let sum = raised.reduce(0, +)
    return raised.map { $0 / sum }
  }
}

// MARK: - Red flags

/// Equal, a simple inflection, or misspelt by one (from five letters) or two (from eight) letters.
func sameWord(_ word: String, _ wanted: String) -> Bool {
  // Two forms of one word begin alike; asking for that first spares nearly all of the work.
  let alike = word.unicodeScalars.first == wanted.unicodeScalars.first
  if alike && sameInflected(word, wanted) { return true }
  if !alike && wanted.utf8.count < 8 { return false }
  let (a, b) = (Array(word.unicodeScalars), Array(wanted.unicodeScalars))
  var room = b.count >= 8 ? 2 : b.count >= 5 ? 1 : 0
  if a.first != b.first { room = b.count >= 8 ? min(room, 1) : 0 }
  if room == 0 || abs(a.count - b.count) > room { return false }
  return editDistance(a, b, room) <= room
}

private func sameInflected(_ word: String, _ wanted: String) -> Bool {
  word == wanted || (word.unicodeScalars.count > 3 && form(word) == form(wanted))
}

private func form(_ word: String) -> String {
  if word.hasSuffix("ies") && word.count > 4 { return word.dropLast(3) + "y" }
  for ending in ["ing", "in", "ed"] where word.hasSuffix(ending) && word.count - ending.count >= 4 {
    return word.dropLast(ending.count) + "~"
  }
  var kept = Substring(word)
  while kept.hasSuffix("s") { kept.removeLast() }
  return String(kept)
}

/// Optimal string alignment distance, cut off above `most`.
private func editDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar], _ most: Int) -> Int {
  var before: [Int] = []
  var row = Array(0...b.count)
  for i in stride(from: 1, through: a.count, by: 1) {
    let older = before
    before = row
    row = [i]
    for j in stride(from: 1, through: b.count, by: 1) {
      var cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
      if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] { cost = min(cost, older[j - 2] + 1) }
      row.append(cost)
    }
    if row.min()! > most { return most + 1 }
  }
  return row.last!
}

public struct Fired {
  public let name, advice: String
}

/// The rules of knowledge.json, with the word lists and patterns of constants.json.
public final class RedFlags {
  fileprivate static let word = Pattern("[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\\n]")
  fileprivate static let commaOrWord = Pattern(",|[a-z0-9][a-z0-9'.]*[a-z0-9]|[a-z0-9]|[.;!?\\n]")
  fileprivate static let stops: Set<String> = [".", ";", "!", "?", "\n"]
  fileprivate static let held: Set<String> = ["not", "won't", "can't", "never"]

  private struct Rule {
    let fired: Fired
    let patterns: [[[String]]]
  }

  private let rules: [Rule]
  private let window: Int
  fileprivate let ordinary, negations, farReaching, reset, manner, selves, looksOn: Set<String>
  fileprivate let afterwards, hypothetical: [String]
  fileprivate let written: [String: String]
  fileprivate let past, now, told, nose, someone: Pattern

  init(_ rules: [Object], _ constants: Object, ordinary: Set<String>) throws {
    self.rules = try rules.map {
      Rule(fired: Fired(name: try $0.get("name"), advice: try $0.get("advice")), patterns: try $0.get("patterns"))
    }
    func words(_ name: String) throws -> Set<String> { Set(try constants.get(name) as [String]) }
    self.ordinary = ordinary
    window = try Int(constants.number("window"))
    negations = try words("negations")
    farReaching = try words("farReaching")
    reset = try words("reset")
    manner = try words("manner")
    selves = try words("self")
    looksOn = try words("looksOn")
    afterwards = try constants.get("afterwards")
    hypothetical = try constants.get("hypothetical")
    written = try constants.get("written")
    past = try Pattern(python: constants.get("past"))
    now = try Pattern(python: constants.get("now"))
    told = try Pattern(python: constants.get("told"))
    nose = try Pattern(python: constants.get("nose"))
    someone = try Pattern(python: "(?<![\\w])(?:i|my|he|she|his|her)(?![\\w])")
  }

  fileprivate static func plain(_ text: String) -> String {
    text.lowercased().replacingOccurrences(of: "’", with: "'", options: .literal)
  }

  /// Lower-case words; clause marks are words of their own.
  func words(_ text: String) -> [String] { Self.word.found(Self.plain(text)).map { written[$0] ?? $0 } }

  /// Red flags in a text, in the order of the rules.
  public func check(_ text: String) -> [Fired] {
    let passage = Passage(text, self)
    let lower = text.lowercased()
    if passage.words.isEmpty || (hypothetical.contains { lower.contains($0) } && !someone.occurs(lower)) { return [] }
    return rules.filter { rule in rule.patterns.contains { matches($0.map { $0.flatMap(passage.places) }) } }.map(\.fired)
  }

  /// Whether every group has a place within the window of one place of the first group.
  private func matches(_ groups: [[Int]]) -> Bool {
    groups.allSatisfy { !$0.isEmpty }
      && groups[0].contains { first in groups.dropFirst().allSatisfy { $0.contains { abs($0 - first) <= window } } }
  }
}

/// One text, in which every phrase is looked for once.
private final class Passage {
  let words: [String]
  private let rules: RedFlags
  private let commas: [Int]
  private var found: [String: [Int]] = [:]
  private var spots: [String: Set<Int>] = [:]

  init(_ text: String, _ rules: RedFlags) {
    self.rules = rules
    words = rules.words(text)
    var places: [Int] = []
    var at = 0
    for piece in RedFlags.commaOrWord.found(RedFlags.plain(text)) { if piece == "," { places.append(at) } else { at += 1 } }
    commas = places
  }

  func places(_ phrase: String) -> [Int] {
    if let known = found[phrase] { return known }
    let wanted = rules.words(phrase)
    let here = words.indices.filter { at in
      wanted.indices.allSatisfy { spots(wanted[$0]).contains(at + $0) } && !negated(at) && !past(at)
        && !told(at, wanted.count) && !deniedAfterwards(at, wanted.count)
    }
    found[phrase] = here
    return here
  }

  /// An ordinary word stands for itself and its inflections alone.
  private func spots(_ wanted: String) -> Set<Int> {
    if let known = spots[wanted] { return known }
    let here = Set(words.indices.filter { rules.ordinary.contains(words[$0]) ? sameInflected(words[$0], wanted) : readAs(words[$0], wanted) })
    spots[wanted] = here
    return here
  }

  private func readAs(_ word: String, _ wanted: String) -> Bool {
    if sameWord(word, wanted) { return true }
    let (a, b) = (Array(word.unicodeScalars), Array(wanted.unicodeScalars))
    let short = b.count == 4 && (3...5).contains(a.count) && b.allSatisfy { ("a"..."z").contains($0) }
    return short && a[0] == b[0] && editDistance(a, b, 1) <= 1
  }

  private func ends(_ word: String) -> Bool { RedFlags.stops.contains(word) || rules.reset.contains(word) }

  private func commaBetween(_ back: Int, _ at: Int) -> Bool { commas.contains { back < $0 && $0 <= at } }

  /// Up to four words before in the same clause; far-reaching ones and lists up to thirteen.
  private func negated(_ at: Int) -> Bool {
    for back in stride(from: at - 1, through: max(0, at - 4), by: -1) {
      if ends(words[back]) { return false }
      if rules.negations.contains(words[back]) { return !commaBetween(back, at) || listsAlternatives(back) }
    }
    for back in stride(from: at - 1, through: max(0, at - 13), by: -1) {
      if ends(words[back]) { return false }
      if rules.farReaching.contains(words[back]) { return true }
      if ["no", "nor"].contains(words[back]) && commaBetween(back, at) { return listsAlternatives(back) }
    }
    return false
  }

  private func listsAlternatives(_ begin: Int) -> Bool {
    words[begin...].prefix { !ends($0) }.contains { $0 == "or" || $0 == "nor" }
  }

  private func clause(_ at: Int) -> Range<Int> {
    var (begin, end) = (at, at)
    while begin > 0 && !ends(words[begin - 1]) { begin -= 1 }
    while end < words.count && !ends(words[end]) { end += 1 }
    return begin..<end
  }

  private func text(_ range: Range<Int>) -> String { words[range].joined(separator: " ") }

  /// First word and last word (exclusive) of every mark in a clause.
  private func marks(_ pattern: Pattern, _ clause: Range<Int>) -> [Range<Int>] {
    let text = self.text(clause)
    func blanks(_ until: Int) -> Int { (text as NSString).substring(to: until).filter { $0 == " " }.count }
    return pattern.ranges(text).map { clause.lowerBound + blanks($0.location)..<clause.lowerBound + blanks($0.location + $0.length) + 1 }
  }

  private func distance(to marks: [Range<Int>], _ at: Int) -> Int {
    marks.map { at < $0.lowerBound ? $0.lowerBound - at : max(0, at - $0.upperBound + 1) }.min() ?? 999
  }

  /// A mark of the past after "since" or "for" tells how long it has lasted.
  private func past(_ at: Int) -> Bool {
    let clause = self.clause(at)
    if rules.nose.occurs(text(clause)) { return true }
    let over = marks(rules.past, clause).filter { mark in
      let near = max(clause.lowerBound, mark.lowerBound - 3)..<min(mark.lowerBound + 1, words.count)
      return !words[near].contains { $0 == "since" || $0 == "for" }
    }
    return !over.isEmpty && distance(to: over, at) < distance(to: marks(rules.now, clause), at)
  }

  /// Told of someone in a story: nobody here is named between its mark and the place.
  private func told(_ at: Int, _ length: Int) -> Bool {
    marks(rules.told, clause(at)).contains { mark in
      let end = min(at + length, words.count)
      let between = Array(mark.lowerBound <= at ? words[min(mark.upperBound, end)..<end] : words[at..<mark.lowerBound])
      return !between.indices.contains {
        rules.selves.contains(between[$0]) && !($0 + 1 < between.count && rules.looksOn.contains(between[$0 + 1]))
      }
    }
  }

  private func deniedAfterwards(_ at: Int, _ length: Int) -> Bool {
    let end = clause(at).upperBound
    let rest = at + length < end ? text(at + length..<end) : ""
    if rules.afterwards.contains(where: { rest == $0 || rest.hasSuffix(" " + $0) }) { return true }
    let held = words[at..<min(at + length, words.count)].contains { RedFlags.held.contains($0) }
    return held && at + length < end && rules.manner.contains(words[at + length])
  }
}

// MARK: - Alarm

/// Emergencies in words that no rule foresees: a linear classifier over hashed pieces of a text.
public final class Alarm {
  private static let table: [UInt32] = (0..<256).map { at in
    (0..<8).reduce(UInt32(at)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0xEDB8_8320 : value >> 1 }
  }
  private static let apostrophes = Pattern("['’]()")

  private let weights: [Int8]
  private let scale, bias, threshold: Double
  private let parts: Pattern
  private let lengths: ClosedRange<Int>
  private let least: Int

  init(_ values: Object, _ constants: Object) throws {
    guard let bytes = Data(base64Encoded: try values.get("weights") as String) else {
      throw SymptomChatError("knowledge.json: the alarm's weights are damaged; copy the bundle again")
    }
    weights = bytes.map { Int8(bitPattern: $0) }
    scale = try values.number("scale")
    bias = try values.number("bias")
    threshold = try values.number("threshold")
    parts = try Pattern(python: constants.get("alarmParts"))
    lengths = try Int(constants.number("alarmShortest"))...Int(constants.number("alarmLongest"))
    least = try Int(constants.number("alarmLeast"))
  }

  /// CRC-32 as zlib computes it.
  private static func crc32(_ text: String) -> UInt32 {
    ~text.utf8.reduce(~UInt32(0)) { $0 >> 8 ^ table[Int(($0 ^ UInt32($1)) & 0xFF)] }
  }

  /// Words, neighbouring pairs, pairs with a gap of one, and pieces of words.
  private func pieces(_ text: String) -> Set<[UInt8]> {
    let words = parts.found(Self.apostrophes.firstGroups(lowered(text)))
    // As bytes: two strings that Unicode holds for equal, such as with and without a composed accent, are two pieces.
    var found: Set<[UInt8]> = []
    for (at, word) in words.enumerated() {
      found.insert(Array("w\(word)".utf8))
      if at + 1 < words.count { found.insert(Array("w\(word) \(words[at + 1])".utf8)) }
      if at + 2 < words.count { found.insert(Array("s\(word) \(words[at + 2])".utf8)) }
      if [".", "!", "?", ";", ","].contains(word) { continue }
      let scalars = Array("<\(word)>".unicodeScalars)
      for length in lengths where length <= scalars.count {
        for begin in 0...(scalars.count - length) {
          var piece = String.UnicodeScalarView("c".unicodeScalars)
          piece.append(contentsOf: scalars[begin..<begin + length])
          found.insert(Array(String(piece).utf8))
        }
      }
    }
    return found
  }

  /// How likely a text tells of an emergency, 0–1.
  public func probability(_ text: String) -> Double {
    let buckets = Set(pieces(text).map { Int(Self.crc32(String(decoding: $0, as: UTF8.self)) % UInt32(weights.count)) })
    let total = buckets.reduce(0) { $0 + Int(weights[$1]) }
    let odds = bias + scale * Double(total) / Double(max(least, buckets.count)).squareRoot()
    return 1 / (1 + exp(-min(30, max(-30, odds))))
  }

  func rings(_ text: String) -> Bool { probability(text) >= threshold }
}

// MARK: - The patient's clauses

/// What in a text is the patient's, and is now: symptomchat/runtime/patient.py says what stays and why.
public final class Patient {
  private struct Clause {
    let range: NSRange
    let text: String
  }

  private static let letter = Pattern("[\\p{L}\\p{N}_]")

  private let somebody, stranger, caredFor, anyone, first, singular, being, worry, report, third: Pattern
  private let over, ended, lasts, counts, cut, place, trailing: Pattern
  private let shortest, enough, early, longest: Int
  private let stems, names: Set<String>

  init(_ values: Object, findings: [String], conditions: [String], aliases: Set<String>) throws {
    let patterns: Object = try values.get("patterns")
    func pattern(_ name: String) throws -> Pattern { try Pattern(python: patterns.get(name)) }
    somebody = try pattern("somebody")
    stranger = try pattern("stranger")
    caredFor = try pattern("caredFor")
    anyone = try pattern("anyone")
    first = try pattern("first")
    singular = try pattern("singular")
    being = try pattern("being")
    worry = try pattern("worry")
    report = try pattern("report")
    third = try pattern("third")
    over = try pattern("over")
    ended = try pattern("ended")
    lasts = try pattern("lasts")
    counts = try pattern("counts")
    cut = try pattern("cut")
    place = try pattern("place")
    trailing = try Pattern(python: values.get("trailing"))
    let least = try Int(values.number("shortestWord"))
    let words = Set(findings.flatMap(wordsOf).filter { $0.count >= least })
    let single = aliases.filter { !$0.contains(" ") && $0.count >= least && !words.contains($0) }
    let known = Set(conditions.map(normal)).union(single).union(try values.get("shortNames") as [String])
    shortest = least
    enough = try Int(values.number("enoughTold"))
    early = try Int(values.number("early"))
    stems = Set(words.map(Self.stem))
    names = known
    longest = known.map { $0.components(separatedBy: " ").count }.max() ?? 0
  }

  private static func stem(_ word: String) -> String { word.count > 3 ? form(word) : word }

  /// The text that the ranking reads: the text itself, or what remains of it.
  public func own(_ text: String) -> String {
    let left = leftOut(text)
    if left.isEmpty { return text }
    let kept = NSMutableString(string: text)
    for range in left.reversed() { kept.deleteCharacters(in: range) }
    return trailing.replaced(trimmed(kept as String), with: "")
  }

  /// Places, in UTF-16, of the clauses that are another person's or over.
  func leftOut(_ text: String) -> [NSRange] {
    // Letter by letter, so that places stay where they were.
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      scalars.append(scalar == "’" ? "'" : scalar.properties.lowercaseMapping.unicodeScalars.first ?? scalar)
    }
    let low = String(scalars)
    if !first.occurs(low) { return [] }
    let clauses = self.clauses(low)
    if clauses.count < 2 { return [] }
    let late = clauses.indices.map { $0 > 0 && isOver(clauses[$0].text) }
    // Where a text begins with somebody, that is the patient, and only strangers are told apart.
    let opened = somebody.occurs(clauses[0].text) || caredFor.occurs(clauses[0].text)
    let someOwn = !opened && clauses.indices.contains { !late[$0] && isOwn(clauses[$0].text) }
    if !someOwn && !clauses.contains(where: { caredFor.occurs($0.text) }) { return [] }
    let pattern = someOwn ? somebody : stranger
    let gone = clauses.indices.map { $0 > 0 && (late[$0] || isSomebodys(clauses[$0].text, pattern)) }
    // Something that can be ranked must remain.
    if !clauses.indices.contains(where: { !gone[$0] && told(clauses[$0].text) > 0 }) { return [] }
    return clauses.indices.filter { gone[$0] }.map { clauses[$0].range }
  }

  /// Clauses of a text, each with the mark or word that ends it.
  private func clauses(_ low: String) -> [Clause] {
    let whole = low as NSString
    var found: [Clause] = []
    var begin = 0
    for end in cut.ranges(low).map({ $0.location + $0.length }) + [whole.length] {
      let range = NSRange(location: begin, length: end - begin)
      let text = whole.substring(with: range)
      if !Self.letter.occurs(text) { continue }
      found.append(Clause(range: range, text: text))
      begin = end
    }
    return found
  }

  /// Number of different words in a clause that stand in a finding's name.
  private func told(_ clause: String) -> Int {
    Set(wordsOf(clause).filter { $0.count >= shortest }.map(Self.stem)).intersection(stems).count
  }

  /// Whether the writer tells a finding of their own.
  private func isOwn(_ clause: String) -> Bool {
    if clause.contains("?") || !singular.occurs(clause) { return false }
    if third.occurs(clause) || worry.occurs(clause) || somebody.occurs(clause) { return false }
    return (!anyone.occurs(clause) || being.occurs(clause)) && told(clause) > 0
  }

  /// Whether a clause tells what another person has, and neither a condition nor what that person reports.
  private func isSomebodys(_ clause: String, _ pattern: Pattern) -> Bool {
    guard told(clause) >= enough, let match = pattern.ranges(clause).first else { return false }
    let rest = place.replaced((clause as NSString).substring(from: match.location + match.length), with: " ")
    if first.occurs(rest) || counts.occurs(rest) || namesCondition(rest) { return false }
    return !report.occurs(rest) || third.occurs(rest)
  }

  /// Whether a clause tells what the patient once had, and no condition by its name.
  private func isOver(_ clause: String) -> Bool {
    guard let mark = over.ranges(clause).first else { return false }
    let before = (clause as NSString).substring(to: mark.location).unicodeScalars.count
    if before > early || told(clause) < enough || namesCondition(clause) { return false }
    return ended.occurs(clause) || !lasts.occurs(clause)
  }

  /// Family history, a contact, or what is known of the patient.
  private func namesCondition(_ clause: String) -> Bool {
    let words = wordsOf(clause)
    for length in stride(from: 1, through: min(longest, words.count), by: 1) {
      for begin in 0...(words.count - length)
      where names.contains(words[begin..<begin + length].joined(separator: " ")) { return true }
    }
    return false
  }
}

// MARK: - The assistant

public struct Condition {
  public let name: String
  public let probability: Double
}

public struct Claim {
  public let text: String
  public let confidence: Double
  public let grounded: Bool
}

public struct Answer {
  public let intent: String
  public let conditions: [Condition]
  public let symptoms, treatments: [Claim]
  public let triage: String
  public let redFlags: [Fired]
  /// No rule names an emergency, and the classifier hears one: say `sounds` of constants.json first.
  public let alarmed: Bool
  public let confidence: Double
  public let flagged: Bool
  /// Clauses of the question that were not ranked: another person's, or long over.
  public let leftOut: [String]
}

/// Answers questions with one bundle: the folder's files, and constants.json.
public final class Assistant {
  private struct Record {
    let name: String
    let symptoms, treatments: [String]
    let urgency: String
    var parts: [[String]] { [symptoms, treatments] }
  }

  public let grammar: Grammar
  public let redFlags: RedFlags
  public let alarm: Alarm
  public let patient: Patient
  private let vocabulary: Vocabulary
  private let engine: Engine
  private let calibrator: Calibrator
  private let records: [Record]
  private let phrasings: [String: [String]]
  private let knownNames: [Int: [[String]]]
  /// Names of conditions that are no finding's, and the places of the conditions from 1.
  private let numbers: [String: Int]
  private let stop, notAName: Set<String>
  private let order: [String]
  private let enough, certainty: Double
  private let shown, longestQuestion: Int
  private let asked, asking, caseTold, treated: Pattern

  public init(folder: URL, constants constantsFile: URL) throws {
    let constants = try readObject(constantsFile)
    let manifest = try readObject(folder.appendingPathComponent("manifest.json"))
    try Self.verify(folder, manifest)
    let precision: String = try manifest.get("precision")
    engine = try Engine(folder.appendingPathComponent("model.\(precision).tflite"))
    let tokenizer = try WordPiece(readObject(folder.appendingPathComponent("tokenizer.json")))
    grammar = try Grammar(tokenizer, constants, questionTokens: engine.questionTokens)
    calibrator = try Calibrator(readObject(folder.appendingPathComponent("confidence.json")))
    let knowledge = try readObject(folder.appendingPathComponent("knowledge.json"))
    let columns: Object = try knowledge.get("conditions")
    let stored: Object = try knowledge.get("texts")
    let levels: [String] = try knowledge.get("urgencies")
    let findings = try stored.texts("symptoms"), treatments = try stored.texts("treatments"), titles = try columns.texts("name")
    let symptomsOf: [[Int]] = try columns.get("symptoms"), treatmentsOf: [[Int]] = try columns.get("treatments")
    let levelOf: [Int] = try columns.get("urgency")
    records = titles.indices.map { at in
      Record(
        name: titles[at], symptoms: symptomsOf[at].map { findings[$0] }, treatments: treatmentsOf[at].map { treatments[$0] },
        urgency: levels[levelOf[at]])
    }
    guard records.count + 1 == grammar.conditions else {
      throw SymptomChatError("\(folder.path): knowledge and tokenizer name different conditions")
    }
    let ways = try (knowledge.get("phrasings") as [Any]).map(parted)
    phrasings = Dictionary(uniqueKeysWithValues: zip(findings, ways))
    redFlags = try RedFlags(knowledge.get("red_flags"), constants, ordinary: tokenizer.wholeWords)
    alarm = try Alarm(knowledge.get("alarm"), constants)
    // The first of equals counts: all names before all aliases.
    var called: [String: Int] = [:]
    let aliases = try (columns.get("aliases") as [Any]).map(parted)
    for (at, name) in titles.enumerated() where called[normal(name)] == nil { called[normal(name)] = at + 1 }
    for (at, names) in aliases.enumerated() { for name in names where called[normal(name)] == nil { called[normal(name)] = at + 1 } }
    called[""] = nil
    for (name, title) in try knowledge.get("names") as [String: String] { called[name] = titles.firstIndex(of: title).map { $0 + 1 } }
    let said = Set((findings + ways.flatMap { $0 }).map(normal))
    numbers = called.filter { !said.contains($0.key) }
    patient = try Patient(constants.get("patient"), findings: findings, conditions: titles, aliases: Set(called.keys))
    let parts = [records.flatMap(\.symptoms), records.flatMap(\.treatments)]
    vocabulary = try Vocabulary(grammar, constants.get("decoding"), parts)
    let names = Set(called.keys).union(findings.map(normal))
    knownNames = Dictionary(grouping: names.map { $0.components(separatedBy: " ") }, by: \.count)
    stop = Set(try constants.get("stop") as [String])
    notAName = Set(try constants.get("notAName") as [String])
    order = try constants.get("order")
    enough = try constants.number("enough")
    shown = try Int(constants.number("shown"))
    longestQuestion = try Int(constants.number("longestQuestion"))
    asked = try Pattern(python: constants.get("asked"), ignoreCase: true)
    asking = try Pattern(python: constants.get("asking"), ignoreCase: true)
    caseTold = try Pattern(python: constants.get("case"), ignoreCase: true)
    treated = try Pattern(python: constants.get("treated"), ignoreCase: true)
    certainty = try constants.number("named")
  }

  /// Token ids of what the model reads of a question: the patient's own clauses.
  public func encode(_ text: String) -> [Int] { grammar.question(patient.own(text)) }

  public func ask(_ text: String) throws -> Answer {
    guard !trimmed(text).isEmpty else { throw SymptomChatError("question: is empty; describe the symptoms in a sentence") }
    guard text.unicodeScalars.count <= longestQuestion else {
      throw SymptomChatError("question: is longer than \(longestQuestion) characters; shorten it to what matters")
    }
    let fired = redFlags.check(text)
    let alarmed = alarm.rings(text)
    let urgent = !fired.isEmpty || alarmed
    let ids = encode(text)
    var ranked = try engine.prefill(ids)
    let number = named(text)
    if let number {
      // A name is no guess: what the ranking makes of its words keeps a small share.
      ranked.probabilities = ranked.probabilities.map { $0 * (1 - certainty) }
      ranked.probabilities[number] += certainty
    }
    let features = calibrator.features(
      ranked.probabilities, novelty: ranked.novelty, unknown: grammar.unknownShare(ids), pieces: ids.count)
    let confidence = calibrator.confidence(features)
    let probabilities = calibrator.soften(ranked.probabilities)
    let best = (1..<probabilities.count).sorted { (-probabilities[$0], $0) < (-probabilities[$1], $1) }
    let none = probabilities[0] >= probabilities[best[0]]
    let flagged = none || unknownName(text) != nil || confidence < calibrator.threshold
    let record = records[best[0] - 1]
    let guide = Guide(vocabulary, record.parts, asked: number == nil ? nil : treated.occurs(text) ? "treatment" : "symptoms")
    // Nothing is told of what fits nothing that is known.
    let tokens = none ? [] : try engine.generate(length: ids.count, condition: grammar.none + best[0], end: grammar.end, guide: guide)
    let wish = tokens.first.map { grammar.intent($0.id) } ?? "none"
    let intent = none ? "none" : wish == "none" ? "diagnose" : wish
    func claims(_ part: Int) -> [Claim] {
      guide.named.filter { $0.part == part }.map { entry in
        let mean = tokens[entry.span].reduce(0) { $0 + $1.logProbability } / Double(entry.span.count)
        return Claim(text: entry.text, confidence: Self.round(exp(mean)), grounded: supported(entry.text, record.parts[part]))
      }
    }
    let level = ["symptoms", "treatment"].contains(intent) && !urgent ? record.urgency : triage(best, probabilities, urgent, none)
    return Answer(
      intent: intent, conditions: best.prefix(shown).map { Condition(name: records[$0 - 1].name, probability: Self.round(probabilities[$0])) },
      symptoms: claims(0), treatments: claims(1), triage: level, redFlags: fired, alarmed: alarmed && fired.isEmpty,
      confidence: Self.round(confidence), flagged: flagged,
      leftOut: patient.leftOut(text).map { trimmed((text as NSString).substring(with: $0)) })
  }

  /// Erring to the safe side: a red flag, the alarm, or emergencies that together hold enough of the probability.
  private func triage(_ best: [Int], _ probabilities: [Double], _ urgent: Bool, _ none: Bool) -> String {
    if urgent { return "emergency" }
    if none { return "unknown" }
    var mass: [String: Double] = [:]
    for number in best.prefix(50) { mass[records[number - 1].urgency, default: 0] += probabilities[number] }
    let emergency = mass["emergency"] ?? 0
    if emergency >= enough { return "emergency" }
    let least = (mass["see_doctor"] ?? 0) + emergency >= enough ? "see_doctor" : "unknown"
    return [records[best[0] - 1].urgency, least].max { (order.firstIndex(of: $0) ?? 0) < (order.firstIndex(of: $1) ?? 0) }!
  }

  /// The name of the condition that a question asks about, where its form shows one.
  private func askedName(_ text: String) -> String? { asked.group(text).map(trimmed) }

  /// Number (from 1) of the condition that a question asks about by name, without telling a case.
  func named(_ text: String) -> Int? {
    let alone = normal(text)
    guard let name = numbers[alone] == nil ? askedName(text) : alone else { return nil }
    if caseTold.occurs(asking.replaced(text, with: " ")) { return nil }
    let words = wordsOf(name)
    if let number = numbers[words.joined(separator: " ")] { return number }
    let alike = (knownNames[words.count] ?? []).filter { zip(words, $0).allSatisfy(sameWord) }
    let found = Set(alike.compactMap { numbers[$0.joined(separator: " ")] })
    return found.count == 1 ? found.first : nil
  }

  /// The condition that a question asks about by name, where that is no name of a known one.
  func unknownName(_ text: String) -> String? {
    guard let name = askedName(text) else { return nil }
    let words = wordsOf(name)
    if words.isEmpty || words.count > 5 || words.contains(where: notAName.contains) { return nil }
    for length in stride(from: words.count, to: 0, by: -1) {
      for begin in 0...(words.count - length) {
        let part = words[begin..<begin + length]
        if (knownNames[length] ?? []).contains(where: { zip(part, $0).allSatisfy(sameWord) }) { return nil }
      }
    }
    return name
  }

  private func content(_ text: String) -> Set<String> {
    Set(wordsOf(text).filter { !stop.contains($0) }.map {
      $0.count > 3 && $0.hasSuffix("s") && !$0.hasSuffix("ss") ? String($0.dropLast()) : $0
    })
  }

  private func supported(_ claim: String, _ known: [String]) -> Bool {
    let words = content(claim)
    return !words.isEmpty && known.contains { record in ([record] + (phrasings[record] ?? [])).contains { content($0) == words } }
  }

  private static func round(_ value: Double) -> Double { (value * 10000).rounded() / 10000 }

  /// Format of the bundle, and on Apple's systems SHA-256 of every file that the manifest names.
  private static func verify(_ folder: URL, _ manifest: Object) throws {
    guard try manifest.get("format") == "symptomchat-bundle/2" else {
      throw SymptomChatError("\(folder.path): is not a bundle of this version; use another")
    }
    for (name, wanted) in try manifest.get("files") as [String: String] {
      let content = try Data(contentsOf: folder.appendingPathComponent(name))
      #if canImport(CryptoKit)
        let digest = SHA256.hash(data: content).map { String(format: "%02x", $0) }.joined()
        guard digest == wanted else { throw SymptomChatError("\(name): is damaged; copy the bundle again") }
      #else
        guard !content.isEmpty && wanted.count == 64 else { throw SymptomChatError("\(name): is damaged; copy the bundle again") }
      #endif
    }
  }
}
