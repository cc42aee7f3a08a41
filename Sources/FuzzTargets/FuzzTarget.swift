// SPDX-License-Identifier: Apache-2.0
//
// What the fuzzer does with octets. The same bodies are called by Fuzz/Fuzzer, which libFuzzer drives, and by a test
// that replays what was once found. Fuzz/README.md says how to run them.

/// One decoder, or a few that belong together, with what must hold whatever is fed to it.
package enum FuzzTarget: String, Sendable, CaseIterable {
    case server
    case data
    case reply
    case dns
    case frames
    case records
    case export
    case header
    case settings
    case aliases
    case dotfiles
    case tables
    case addresses
    case tls
    case credentials

    /// Feeds the octets to the decoder.
    ///
    /// - Returns: what is wrong, or nil. A trap is a finding as well.
    package func fault(_ octets: [UInt8]) -> String? {
        var script = FuzzScript(octets)
        do throws(Breach) {
            switch self {
            case .server: try ServerBody.run(&script)
            case .data: try DataBody.run(&script)
            case .reply: try ReplyBody.run(&script)
            case .dns: try DNSBody.run(&script)
            case .frames: try FramesBody.run(&script)
            case .records: try RecordsBody.run(octets)
            case .export: try ExportBody.run(&script)
            case .header: try HeaderBody.run(&script)
            case .settings: try SettingsBody.run(octets)
            case .aliases: try AliasesBody.run(octets)
            case .dotfiles: try DotFilesBody.run(octets)
            case .tables: try TablesBody.run(octets)
            case .addresses: try AddressesBody.run(octets)
            case .tls: try TLSBody.run(octets)
            case .credentials: try CredentialsBody.run(&script)
            }
            return nil
        } catch {
            return error.text
        }
    }
}

/// What does not hold.
struct Breach: Error {
    let text: String
}

/// Throws unless something holds.
func hold(_ isTrue: Bool, _ text: @autoclosure () -> String) throws(Breach) {
    if !isTrue { throw Breach(text: text()) }
}

/// The fuzzer's octets as decisions and a stream: the first octet says how many decisions follow, which then come round
/// again and again; the rest is what the decoder reads.
struct FuzzScript {
    private let decisions: ArraySlice<UInt8>
    private var index = 0
    let stream: [UInt8]

    init(_ octets: [UInt8]) {
        let count = min(Int(octets.first ?? 0) % 16, max(octets.count - 1, 0))
        self.decisions = octets.dropFirst().prefix(count)
        self.stream = Array(octets.dropFirst(1 + count))
    }

    /// The next decision, below `limit`; 0 if the script has none.
    mutating func next(_ limit: Int) -> Int {
        guard !self.decisions.isEmpty else { return 0 }
        let value = self.decisions[self.decisions.startIndex + self.index % self.decisions.count]
        self.index += 1
        return Int(value) % limit
    }

    /// The stream in pieces of few octets; whole if the script has no decisions.
    mutating func pieces() -> [ArraySlice<UInt8>] {
        var pieces: [ArraySlice<UInt8>] = []
        var rest = self.stream[...]
        while !rest.isEmpty {
            let count = self.decisions.isEmpty ? rest.count : 1 + self.next(24)
            pieces.append(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        return pieces
    }
}
