// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
package import TLSEngine
import Unix

/// Where a certificate with its chain and its key are, as the settings say.
package struct CertificateFiles: Hashable, Sendable {
    /// The address of the listener that it is for, as the administrator wrote it; empty for all of them.
    package let listener: String
    package let chain: String
    package let key: String
    /// Where it stands in the settings.
    package let line: Int

    /// Both files in one text; throws what is wrong with them in the words of an administrator.
    package func read() throws(TLSError) -> (octets: [UInt8], credential: TLSCredential) {
        let chain = try Self.read(self.chain)
        let key = self.key == self.chain ? chain : try Self.read(self.key)
        do throws(TLSError) {
            let credential = try TLSCredential(chain: chain, key: key)
            return (self.key == self.chain ? chain : chain + [0x0A] + key, credential)
        } catch {
            throw TLSError("\(self.chain) with \(self.key): \(error.text)")
        }
    }

    private static func read(_ path: String) throws(TLSError) -> [UInt8] {
        do throws(SystemError) {
            return try Descriptor.readFile(path, octetCountMax: CertificateFile.octetCountMax / 2 - 1)
        } catch { throw TLSError("\(path) cannot be read: \(error.text)") }
    }

    /// Why this user may not read a file; nil if he may, or there is another reason.
    private static func refusal(of path: String) -> SystemError? {
        guard access(path, R_OK) != 0, errno == EACCES else { return nil }
        return SystemError("open", path)
    }

    /// Remarks about the files as they are now.
    ///
    /// - Parameter isStarting: what makes others mistrust the server, but does not keep it from serving, is advice then: a
    ///   mail server whose certificate has expired is better than none.
    func remarks(file: String, now: Timestamp, isStarting: Bool) -> [Remark] {
        // A key is root's alone, as it should be; who checks the settings of a server that root starts cannot look at it.
        if !isStarting, !Privileges.isRoot, let refusal = Self.refusal(of: self.chain) ?? Self.refusal(of: self.key) {
            return [Remark(.advice, file: file, line: self.line, refusal.text, hint: "root can tell")]
        }
        do throws(TLSError) {
            return try self.read().credential.findings(now: now).map { finding in
                switch finding {
                case .unusable(let text): Remark(file: file, line: self.line, "\(self.chain): \(text)")
                case .fault(let text):
                    Remark(isStarting ? .advice : .mistake, file: file, line: self.line, "\(self.chain): \(text)")
                case .advice(let text): Remark(.advice, file: file, line: self.line, "\(self.chain): \(text)")
                }
            }
        } catch {
            return [Remark(file: file, line: self.line, error.text)]
        }
    }
}
