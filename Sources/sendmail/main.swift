// SPDX-License-Identifier: Apache-2.0

import LocalSubmitter

SendmailProgram.main()
