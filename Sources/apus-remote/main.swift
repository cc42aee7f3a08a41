// SPDX-License-Identifier: Apache-2.0

import RemoteSender

RemoteProgram.main()
