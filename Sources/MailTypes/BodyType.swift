// SPDX-License-Identifier: Apache-2.0

/// What the sender declared of the content (RFC 6152 §2). Without a declaration it is `sevenBit`.
package enum BodyType: String, Hashable, Sendable, CaseIterable {
    case sevenBit = "7bit"
    case eightBitMIME = "8bitmime"
}
