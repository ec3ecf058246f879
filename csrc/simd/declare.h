// LC_DECLARE: a kernel's declaration in the namespace of every instruction set.
#pragma once

#define LC_DECLARE(SIGNATURE) \
  namespace baseline {        \
  SIGNATURE;                  \
  }                           \
  namespace avx2 {            \
  SIGNATURE;                  \
  }                           \
  namespace avx512 {          \
  SIGNATURE;                  \
  }                           \
  namespace avx512_bf16 {     \
  SIGNATURE;                  \
  }
