/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APUS_CIDN_H
#define APUS_CIDN_H

#include <idn2.h>

/* The domain with its labels as A-labels, to be freed with idn2_free, or NULL: IDNA2008 with the mappings of UTS #46,
 * non-transitional, so that a sharp s stays one. */
static inline char *apus_idn_ascii(const char *domain) {
    char *ascii = NULL;
    return idn2_to_ascii_8z(domain, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) == IDN2_OK ? ascii : NULL;
}

#endif
