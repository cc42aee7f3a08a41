// SPDX-License-Identifier: Apache-2.0

import LocalDeliverer

LocalDelivererProgram.main(CommandLine.arguments)
