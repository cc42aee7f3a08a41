#include <lmdb.h>
#include <sys/types.h>

/* fallocate(2), which Swift cannot see. */
extern int fallocate64(int descriptor, int mode, off_t offset, off_t count);
