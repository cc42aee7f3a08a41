/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CALLOCATIONS_H
#define CALLOCATIONS_H

#include <stdint.h>

/* How often this thread has called malloc and its kin since it began. Whoever links this has its own malloc, which
 * counts and then does what the C library does. */
uint64_t apus_allocation_count(void);

#endif
