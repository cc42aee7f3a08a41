// SPDX-License-Identifier: Apache-2.0

/// What the sender declared of the content (RFC 6152 §2). Without a declaration it is `sevenBit`.
package enum BodyType: String, Hashable, Sendable, CaseIterable {
    case sevenBit = "7bit"
    case eightBitMIME = "8bitmime"
}

extension BodyType {
    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    package init?(octets: ArraySlice<UInt8>) {
        if octets.elementsEqual("7bit".utf8) {
            self = .sevenBit
        } else if octets.elementsEqual("8bitmime".utf8) {
            self = .eightBitMIME
        } else {
            return nil
        }
    }

    package var octets: [UInt8] { Array(self.rawValue.utf8) }
}
