// SPDX-License-Identifier: Apache-2.0

/// A name with a value: how records travel in exports, where fields may be added over time.
package struct NamedOctets: Hashable, Sendable {
    package let name: [UInt8]
    package private(set) var value: [UInt8]

    package init(name: ArraySlice<UInt8>, value: ArraySlice<UInt8>) {
        self.name = Array(name)
        self.value = Array(value)
    }

    package init(_ name: String, _ value: [UInt8]) {
        self.name = Array(name.utf8)
        self.value = value
    }

    package init(_ name: String, _ number: UInt64) {
        self.name = Array(name.utf8)
        self.value = []
        self.value.append(decimal: number)
    }
}
