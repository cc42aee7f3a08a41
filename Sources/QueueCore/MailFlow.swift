// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// Whose mail it is, and how urgent: what takes turns at a destination, so that one sender's million does not keep
/// another's single message waiting.
package struct MailFlow: Hashable, Sendable {
    /// A number made from the sender. Two senders with the same number share their turns, and nothing else.
    package let sender: UInt32
    package let priority: MailPriority

    package init(sender: UInt32, priority: MailPriority) {
        self.sender = sender
        self.priority = priority
    }

    /// The flow of a message from this reverse-path.
    ///
    /// Of the local part only what is in front of the first `+`, `-`, `=` or digit counts: a list that writes each
    /// message from an address of its own (VERP) is one sender all the same. All reports are one sender, too.
    package init(_ reversePath: ReversePath, _ priority: MailPriority) {
        // FNV-1a.
        var hash: UInt32 = 0x811C_9DC5
        if case .address(let address) = reversePath {
            for octet in address.localPart {
                if octet.isDigit || octet == 0x2B || octet == ASCII.hyphen || octet == 0x3D { break }
                hash = (hash ^ UInt32(octet.lowercased)) &* 0x0100_0193
            }
            hash = (hash ^ UInt32(ASCII.at)) &* 0x0100_0193
            for octet in address.domain { hash = (hash ^ UInt32(octet.lowercased)) &* 0x0100_0193 }
        }
        self.init(sender: hash, priority: priority)
    }
}
