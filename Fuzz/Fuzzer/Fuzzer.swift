// SPDX-License-Identifier: Apache-2.0
//
// What libFuzzer calls. Built only with APUS_FUZZ in the environment; etc/fuzz does it.

import FuzzTargets
import Glibc

/// The target that APUS_FUZZ_TARGET names.
private let target: FuzzTarget = {
    let name = getenv("APUS_FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let target = FuzzTarget(rawValue: name) else {
        preconditionFailure("APUS_FUZZ_TARGET is none of \(FuzzTarget.allCases.map(\.rawValue).joined(separator: " "))")
    }
    return target
}()

/// One run. A breach ends the process, and libFuzzer keeps the octets.
@_cdecl("LLVMFuzzerTestOneInput")
public func runOnce(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let octets = Array(UnsafeBufferPointer(start: start, count: count))
    guard let fault = target.fault(octets) else { return 0 }
    // A release build would leave the words of a precondition out.
    let line = Array("Fatal error: \(target.rawValue): \(fault)\n".utf8)
    _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    preconditionFailure(fault)
}

/// libFuzzer's loop, under its name in C.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutablePointer<FuzzerArguments>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// `argv`.
public typealias FuzzerArguments = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?

/// Where the process begins: SwiftPM makes `main` of an executable an alias of this name.
@_cdecl("fuzzer_main")
public func begin(_ count: CInt, _ arguments: FuzzerArguments) -> CInt {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments, runOnce)
}
