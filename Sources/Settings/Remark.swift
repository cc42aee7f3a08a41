// SPDX-License-Identifier: Apache-2.0

/// What is wrong in the settings, or could be better, with its place and a way out.
package struct Remark: Equatable, Sendable {
    package enum Weight: String, Sendable {
        /// Apus does not start with it.
        case mistake
        /// It works, but probably not as it was meant.
        case advice
    }

    package let weight: Weight
    package let file: String
    /// From 1; 0 concerns the file as a whole.
    package let line: Int
    package let text: String
    /// What to do about it; empty if the text says all.
    package let hint: String
    /// Whether it may be otherwise in a moment, without anybody's doing: an address that is in use, or not there yet.
    package var isPassing = false

    package init(_ weight: Weight = .mistake, file: String, line: Int, _ text: String, hint: String = "") {
        self.weight = weight
        self.file = file
        self.line = line
        self.text = text
        self.hint = hint
    }

    /// `apus.toml:12: unknown key "hostnam"; did you mean "hostname"?`, in the manner of compilers.
    package var description: String {
        let place = self.line > 0 ? "\(self.file):\(self.line)" : self.file
        let kind = self.weight == .advice ? "advice: " : ""
        let hint = self.hint.isEmpty ? "" : "; \(self.hint)"
        return "\(place): \(kind)\(self.text)\(hint)"
    }
}

/// Finds the word that was probably meant.
enum Spelling {
    /// The candidate nearest to `word`, if it is near enough to be a slip of the fingers.
    static func nearest(to word: String, among candidates: [String]) -> String? {
        var best: (name: String, distance: Int)?
        for candidate in candidates {
            let distance = Self.distance(Array(word.utf8), Array(candidate.utf8))
            // One slip in three letters is still recognisable, more is another word.
            guard distance * 3 <= max(word.utf8.count, 3), distance < (best?.distance ?? .max) else { continue }
            best = (candidate, distance)
        }
        return best?.name
    }

    /// The least number of letters put in, left out, changed, or swapped with their neighbour.
    ///
    /// Letters of either case, and `_` and `-`, count as the same.
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        // Long words are no slips of short ones; and the work stays small.
        guard left.count <= 64, right.count <= 64 else { return .max / 4 }
        let left = left.map(Self.folded)
        let right = right.map(Self.folded)
        var rows = [Array(0...right.count)]
        for i in left.indices {
            var row = [i + 1]
            for j in right.indices {
                var cost = min(row[j] + 1, rows[i][j + 1] + 1, rows[i][j] + (left[i] == right[j] ? 0 : 1))
                if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] {
                    cost = min(cost, rows[i - 1][j - 1] + 1)
                }
                row.append(cost)
            }
            rows.append(row)
        }
        return rows[left.count][right.count]
    }

    private static func folded(_ octet: UInt8) -> UInt8 {
        if octet == 0x5F { return 0x2D }
        return octet >= 0x41 && octet <= 0x5A ? octet | 0x20 : octet
    }
}
