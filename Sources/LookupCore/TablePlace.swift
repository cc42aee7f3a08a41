// SPDX-License-Identifier: Apache-2.0

/// Where a table is, as the settings name it: `text:/etc/apus/virtual`.
package enum TablePlace: Hashable, Sendable {
    /// A file of `key value` lines.
    case text(path: String)
    /// A file of `/regular expression/ value` lines.
    case regexp(path: String)
    /// A file of `beginning value` lines.
    case prefix(path: String)
    /// What `apus table build` has made of such a file.
    case lmdb(path: String)
    /// What another program answers: `socketmap:unix:/run/tables:users`.
    case socketmap(SocketmapPlace)

    /// Nil if it is none of these.
    package init?(_ text: String) {
        guard let colon = text.firstIndex(of: ":") else { return nil }
        let rest = String(text[text.index(after: colon)...])
        let make: [Substring: (String) -> TablePlace] = [
            "text": Self.text, "lmdb": Self.lmdb, "regexp": Self.regexp, "prefix": Self.prefix,
        ]
        switch text[..<colon] {
        case let kind where make[kind] != nil:
            guard rest.utf8.first == 0x2F, let place = make[kind]?(rest) else { return nil }
            self = place
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
        case .regexp(let path): "regexp:\(path)"
        case .prefix(let path): "prefix:\(path)"
        case .socketmap(let place): "socketmap:\(place.text)"
        }
    }

    /// The file that is read; nil if there is none.
    package var path: String? {
        switch self {
        case .text(let path), .lmdb(let path), .regexp(let path), .prefix(let path): path
        case .socketmap: nil
        }
    }
}
