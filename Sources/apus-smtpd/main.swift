// SPDX-License-Identifier: Apache-2.0

import Receiver

ReceiverProgram.main()
