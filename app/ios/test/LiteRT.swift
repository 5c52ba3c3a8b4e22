/// Stand-in for the Swift package LiteRT on a machine without Apple's systems: the same calls with the same types, each
/// forward pass done by the Python LiteRT at the other end of two named pipes in the folder SYMPTOMCHAT_FORWARD.
/// Signatures and tensors are listed in another order than the file's, since LiteRT promises none.
import Foundation

public enum LiteRtError: Error {
  case invalidArgument, runtimeFailure
}

public enum Accelerator: Int32 {
  case none = 0
  case cpu = 1
}

public final class Options {
  fileprivate var accelerators: Set<Accelerator> = []
  public init() throws {}
  public func setHardwareAccelerators(_ accelerators: Set<Accelerator>) throws { self.accelerators = accelerators }
}

public final class Environment {
  public init() throws {}
}

public final class TensorBuffer {
  fileprivate var content: Data
  public var size: Int { content.count }

  fileprivate init(_ size: Int) { content = Data(count: size) }

  public func write<T>(_ data: [T]) throws {
    let bytes = data.withUnsafeBytes { Data($0) }
    guard bytes.count == size else { throw LiteRtError.invalidArgument }
    content = bytes
  }

  public func read<T>() throws -> [T] {
    content.withUnsafeBytes { Array($0.bindMemory(to: T.self)) }
  }
}

public final class CompiledModel {
  private struct Tensor {
    let name: String
    let bytes: Int
  }

  private let requests, replies: FileHandle
  private var keys: [String] = []
  private var inputs: [String: [Tensor]] = [:]
  private var outputs: [String: [Tensor]] = [:]

  public init(filePath: String, environment: Environment, options: Options? = nil) throws {
    guard let folder = ProcessInfo.processInfo.environment["SYMPTOMCHAT_FORWARD"], options?.accelerators == [.cpu],
      let requests = FileHandle(forWritingAtPath: folder + "/requests"),
      let replies = FileHandle(forReadingAtPath: folder + "/replies")
    else { throw LiteRtError.runtimeFailure }
    (self.requests, self.replies) = (requests, replies)
    requests.write(Data("open \(filePath)\n".utf8))
    while let words = Optional(try line().split(separator: " ").map(String.init)), !words.isEmpty {
      if !keys.contains(words[0]) { keys.insert(words[0], at: 0) }
      let tensor = Tensor(name: words[2], bytes: words.dropFirst(3).reduce(4) { $0 * Int($1)! })
      if words[1] == "in" { inputs[words[0], default: []].append(tensor) } else { outputs[words[0], default: []].append(tensor) }
    }
  }

  private func line() throws -> String {
    var text = Data()
    while let byte = try replies.read(upToCount: 1), byte != Data([10]) { text.append(byte) }
    return String(decoding: text, as: UTF8.self)
  }

  private func tensors(_ all: [String: [Tensor]], _ index: Int) throws -> [Tensor] {
    guard keys.indices.contains(index) else { throw LiteRtError.invalidArgument }
    return all[keys[index]]!.reversed()
  }

  public func inputCount(signatureIndex: Int = 0) throws -> Int { try tensors(inputs, signatureIndex).count }
  public func outputCount(signatureIndex: Int = 0) throws -> Int { try tensors(outputs, signatureIndex).count }

  public func inputName(inputIndex: Int, signatureIndex: Int = 0) throws -> String {
    try tensors(inputs, signatureIndex)[inputIndex].name
  }

  public func outputName(outputIndex: Int, signatureIndex: Int = 0) throws -> String {
    try tensors(outputs, signatureIndex)[outputIndex].name
  }

  public func createInputBuffers(signatureIndex: Int = 0) throws -> [TensorBuffer] {
    try tensors(inputs, signatureIndex).map { TensorBuffer($0.bytes) }
  }

  public func createOutputBuffers(signatureIndex: Int = 0) throws -> [TensorBuffer] {
    try tensors(outputs, signatureIndex).map { TensorBuffer($0.bytes) }
  }

  public func run(
    inputs given: [TensorBuffer], outputs wanted: [TensorBuffer], options: Options? = nil, signatureIndex: Int = 0
  ) throws {
    let named = try tensors(inputs, signatureIndex)
    guard given.map(\.size) == named.map(\.bytes) else { throw LiteRtError.invalidArgument }
    requests.write(Data("run \(keys[signatureIndex]) \(named.map(\.name).joined(separator: " "))\n".utf8))
    for buffer in given { requests.write(buffer.content) }
    // The reply holds every output in the order in which they were described.
    for buffer in wanted.reversed() {
      buffer.content = Data()
      let size = try tensors(outputs, signatureIndex)[wanted.firstIndex { $0 === buffer }!].bytes
      while buffer.content.count < size, let piece = try replies.read(upToCount: size - buffer.content.count), !piece.isEmpty {
        buffer.content.append(piece)
      }
    }
  }
}
