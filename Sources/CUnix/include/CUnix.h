#ifndef CUNIX_H
#define CUNIX_H
#endif
