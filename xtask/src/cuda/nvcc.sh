#!/bin/sh
# The compiler, but for the files of candle-kernels with which nothing here could be linked wrongly: mixture-of-experts and quantized
# kernels make up three quarters of its build and of the binary, and nothing in Diptych calls them. Their functions become ones that stop
# the program, so that a call would not go unnoticed.
source=
object=
compile=
previous=
for word in "$@"; do
    [ "$previous" = -o ] && object=$word
    [ "$word" = -c ] && compile=yes
    case $word in *.cu) source=$word ;; esac
    previous=$word
done
case $source in
*candle-kernels*/src/moe/* | *candle-kernels*/src/mm*_gguf* | src/moe/* | src/mm*_gguf*)
    if [ -n "$compile" ]; then
        {
            echo '#include <stdlib.h>'
            case $source in
            *moe/moe_gguf.cu) sed -n 's/.*pub fn \([a-z_0-9A-Z]*\).*/void \1(void) { abort(); }/p' src/ffi.rs ;;
            esac
        } | cc -O1 -fPIC -w -c -x c - -o "$object"
        exit
    fi
    ;;
esac
exec "${DIPTYCH_NVCC:?the real compiler; cargo xtask cuda-toolkit sets it}" "$@"
