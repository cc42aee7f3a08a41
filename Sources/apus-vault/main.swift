// SPDX-License-Identifier: Apache-2.0

import Vault

VaultProgram.main()
