// SPDX-License-Identifier: Apache-2.0

/// Where a table is, as the settings name it: `text:/etc/apus/virtual`.
package enum TablePlace: Hashable, Sendable {
    /// A file of `key value` lines.
    case text(path: String)
    /// What `apus table build` has made of such a file.
    case lmdb(path: String)
    /// What another program answers: `socketmap:unix:/run/tables:users`.
    case socketmap(SocketmapPlace)

    /// Nil if it is none of these.
    package init?(_ text: String) {
        guard let colon = text.firstIndex(of: ":") else { return nil }
        let rest = String(text[text.index(after: colon)...])
        switch text[..<colon] {
        case "text":
            guard rest.utf8.first == 0x2F else { return nil }
            self = .text(path: rest)
        case "lmdb":
            guard rest.utf8.first == 0x2F else { return nil }
            self = .lmdb(path: rest)
        case "socketmap":
            guard let place = SocketmapPlace(rest) else { return nil }
            self = .socketmap(place)
        default: return nil
        }
    }

    /// As it stands in the settings.
    package var text: String {
        switch self {
        case .text(let path): "text:\(path)"
        case .lmdb(let path): "lmdb:\(path)"
        case .socketmap(let place): "socketmap:\(place.text)"
        }
    }

    /// The file that is read; nil if there is none.
    package var path: String? {
        switch self {
        case .text(let path), .lmdb(let path): path
        case .socketmap: nil
        }
    }
}
