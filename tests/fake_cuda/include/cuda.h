/* cuda.h - as much of the CUDA driver's interface as kernels/cuda/cuda.h names. */
#ifndef FAKE_CUDA_DRIVER_API_H
#define FAKE_CUDA_DRIVER_API_H

typedef struct CUtensorMap_st {
    _Alignas(128) unsigned char opaque[128];
} CUtensorMap;

#endif
