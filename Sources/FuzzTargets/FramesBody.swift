// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore

/// Another of our programs that writes what it likes.
enum FramesBody {
    static func run(_ script: inout FuzzScript) throws(Breach) {
        let whole = Self.decode([script.stream[...]])
        let cut = Self.decode(script.pieces())
        try hold(whole.fault == cut.fault, "another fault at other cuts")
        try hold(whole.frames.count == cut.frames.count, "other frames at other cuts")
        for (frame, other) in zip(whole.frames, cut.frames) {
            try hold(Self.fields(frame) == Self.fields(other), "other fields at other cuts")
            try Self.check(frame)
        }
    }

    private static func decode(_ pieces: [ArraySlice<UInt8>]) -> (frames: [Frame], fault: FrameFault?) {
        var decoder = FrameDecoder()
        var frames: [Frame] = []
        for piece in pieces {
            decoder.append(Array(piece))
            do throws(FrameFault) {
                while let frame = try decoder.next() { frames.append(frame) }
            } catch {
                return (frames, error)
            }
        }
        return (frames, nil)
    }

    private static func fields(_ frame: Frame) -> [[UInt8]] {
        [frame.verb.octets] + (0..<frame.fieldCount).map { Array(frame[$0]) }
    }

    private static func check(_ frame: Frame) throws(Breach) {
        try hold(frame.fieldCount <= FrameLimits.fieldCountMax, "\(frame.fieldCount) fields")
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try SubmitRequest(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try SubmitAnswer(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try DeliverRequest(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try DeliverAnswer(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try AskQuestion(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try AskAnswer(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try VaultRequest(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try VaultAnswer(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try ExportPart(frame) }) {
            $0.append(to: &$1, channel: frame.channel)
        }
        try Self.repeated(frame, { (frame: Frame) throws(FrameFault) in try Hello(frame) }) { $0.append(to: &$1) }
        if let refused = try? SubmitAnswer(frame), case .refused(let refusal) = refused {
            try hold(refusal.reply.isRefusal, "a refusal that refuses nothing")
        }
    }

    /// What a dialect reads it writes, and reads again as what it wrote.
    private static func repeated<Value>(
        _ frame: Frame, _ read: (Frame) throws(FrameFault) -> Value, _ write: (Value, inout [UInt8]) -> Void
    ) throws(Breach) {
        guard let value = try? read(frame) else { return }
        var first: [UInt8] = []
        write(value, &first)
        var decoder = FrameDecoder()
        decoder.append(first)
        var second: [UInt8] = []
        do throws(FrameFault) {
            while let next = try decoder.next() { write(try read(next), &second) }
        } catch {
            throw Breach(text: "\(Value.self) writes what it does not read: \(error.text)")
        }
        try hold(first == second, "\(Value.self) reads something else than it wrote")
    }
}
