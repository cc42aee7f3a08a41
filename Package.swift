// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
//
// The floors of Apus, bottom up. A target imports only what is listed for it here, and only from
// lower floors; Tests/HouseTests holds the sources against this table.

import PackageDescription

/// Every Swift target: Swift 6 language mode (by the tools version), and no warning passes.
let house: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

/// Floors 1 and 2 know the standard library alone and use nothing unsafe.
let pure: [SwiftSetting] = house + [.strictMemorySafety()]

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
]

func room(_ name: String, _ dependencies: [Target.Dependency], _ settings: [SwiftSetting] = house)
    -> Target
{
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func program(_ name: String, _ library: Target.Dependency) -> Target {
    .executableTarget(name: name, dependencies: [library], swiftSettings: house)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: house)
}

let package = Package(
    name: "apus",
    products: [],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        // Floor 0: C.
        .target(name: "CUnix"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CCryptography", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev", "libcrypt-dev"])]),
        .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
        .systemLibrary(name: "CIDN", pkgConfig: "libidn2", providers: [.apt(["libidn2-dev"])]),

        // Floor 1: values.
        room("MailTypes", [], pure),

        // Floor 2: cores, without input or output.
        room("SMTPCore", ["MailTypes"], pure),
        room("MessageCore", ["MailTypes"], pure),
        room("DNSCore", ["MailTypes"], pure),
        room("PipeCore", ["MailTypes"], pure),
        room("QueueCore", ["MailTypes"], pure),
        room("LookupCore", ["MailTypes"], pure),
        room("SASLCore", ["MailTypes"], pure),
        room("TOML", ["MailTypes"], pure),

        // Floor 3: hands.
        room("Unix", ["CUnix", "MailTypes", "PipeCore"]),
        room("TLSEngine", ["COpenSSL", "MailTypes"]),
        room("Settings", ["MailTypes", "MessageCore", "LookupCore", "TOML", "PipeCore", "Unix", "TLSEngine", "IDN"]),
        room("LMDB", ["CLMDB"]),
        room("IDN", ["CIDN", "MailTypes"]),
        room("Cryptography", ["CCryptography", "MailTypes", "SASLCore", "PipeCore"]),
        room("ChannelOutlet", nio),

        // Floor 4: drivers.
        room("PipeDrivers", ["MailTypes", "PipeCore", "Unix", "ChannelOutlet"] + nio),
        room("SMTPDrivers", ["MailTypes", "SMTPCore", "DNSCore", "Unix", "TLSEngine", "ChannelOutlet"] + nio),
        room("LMDBQueueStore", ["MailTypes", "QueueCore", "LMDB"]),

        // Floor 5: programs.
        room("Supervisor", ["CUnix", "MailTypes", "PipeCore", "Unix", "Settings", "TLSEngine"]),
        room(
            "Receiver",
            [
                "MailTypes", "SASLCore", "SMTPCore", "MessageCore", "PipeCore", "Unix", "TLSEngine", "IDN",
                "PipeDrivers",
                "SMTPDrivers",
            ] + nio),
        room(
            "QueueManager",
            ["MailTypes", "QueueCore", "PipeCore", "Unix", "Cryptography", "PipeDrivers", "LMDBQueueStore"] + nio),
        room(
            "RemoteSender",
            ["MailTypes", "SMTPCore", "DNSCore", "PipeCore", "Unix", "TLSEngine", "PipeDrivers", "SMTPDrivers"]
                + nio),
        room("LocalDeliverer", ["MailTypes", "MessageCore", "PipeCore", "LookupCore", "Unix", "IDN"]),
        room("Bouncer", ["MailTypes", "MessageCore", "PipeCore", "Unix"]),
        room("LocalSubmitter", ["MailTypes", "SMTPCore", "MessageCore", "TOML", "Unix"]),
        room(
            "Lookup",
            ["MailTypes", "LookupCore", "PipeCore", "Unix", "LMDB", "IDN", "Cryptography", "PipeDrivers"] + nio),
        room(
            "Vault", ["CUnix", "MailTypes", "SASLCore", "PipeCore", "Unix", "Cryptography", "PipeDrivers"] + nio),
        room(
            "Operator",
            [
                "MailTypes", "SASLCore", "PipeCore", "Unix", "Settings", "Cryptography", "LookupCore", "LMDB",
                "IDN", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),

        // Floor 6: executables; main and nothing else.
        program("apusd", "Supervisor"),
        program("apus-smtpd", "Receiver"),
        program("apus-queue", "QueueManager"),
        program("apus-remote", "RemoteSender"),
        program("apus-local", "LocalDeliverer"),
        program("apus-bounce", "Bouncer"),
        program("apus-lookup", "Lookup"),
        program("apus-vault", "Vault"),
        program("apus", "Operator"),
        program("sendmail", "LocalSubmitter"),

        // The virtual world that the queue is proven in; no program links it.
        room("Simulation", ["MailTypes", "QueueCore"], pure),
        program("simulate", "Simulation"),

        // What a fuzzer does with the decoders; no program links it. Fuzz/README.md.
        room(
            "FuzzTargets",
            [
                "MailTypes", "SMTPCore", "MessageCore", "DNSCore", "PipeCore", "QueueCore", "LookupCore", "Settings",
                "LMDBQueueStore", "TLSEngine", "SASLCore", "TOML",
            ]),

        // Tests.
        .target(name: "CAllocations", path: "Tests/CAllocations"),
        tests(
            "AllocationTests",
            ["CAllocations", "MailTypes", "PipeCore", "QueueCore", "SMTPCore", "Simulation"]),
        tests("MailTypesTests", ["MailTypes"]),
        tests("ChannelOutletTests", ["ChannelOutlet"] + nio),
        .testTarget(
            name: "SMTPCoreTests", dependencies: ["SMTPCore", "MailTypes"], exclude: ["Transcripts"],
            swiftSettings: house),
        tests("MessageCoreTests", ["MessageCore", "MailTypes"]),
        tests("DNSCoreTests", ["DNSCore", "MailTypes"]),
        tests("PipeCoreTests", ["PipeCore", "MailTypes"]),
        tests("QueueCoreTests", ["QueueCore", "MailTypes", "Simulation"]),
        tests("LMDBQueueStoreTests", ["LMDBQueueStore", "LMDB", "QueueCore", "MailTypes", "Simulation"]),
        tests("LookupCoreTests", ["LookupCore", "MailTypes"]),
        tests("SASLCoreTests", ["SASLCore", "Cryptography", "MailTypes"]),
        tests("LocalSubmitterTests", ["LocalSubmitter", "MailTypes", "Settings", "Unix"]),
        tests("LocalDelivererTests", ["LocalDeliverer", "LookupCore", "MailTypes", "PipeCore", "Unix"]),
        tests("BouncerTests", ["Bouncer", "MailTypes", "MessageCore", "PipeCore", "Unix"]),
        tests("TLSEngineTests", ["TLSEngine", "MailTypes", "Unix"]),
        tests("IDNTests", ["IDN", "MailTypes"]),
        tests("UnixTests", ["Unix", "PipeCore", "MailTypes"]),
        tests("SettingsTests", ["Settings", "TOML", "PipeCore", "Unix"]),
        tests("SupervisorTests", ["Supervisor", "Settings", "PipeCore"]),
        tests("FuzzTargetTests", ["FuzzTargets"]),
        tests("HouseTests", ["MailTypes"]),
    ]
)

// The fuzzer needs flags of the compiler that everything is built with, and so a build folder of its own: etc/fuzz.
if Context.environment["APUS_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "fuzzer", dependencies: ["FuzzTargets"], path: "Fuzz/Fuzzer", swiftSettings: house))
}
