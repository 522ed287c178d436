// Stands in for cuBLAS: matrix products as Candle and this workspace ask for them.
#include "later.h"
#include "values.h"

#include <cstdio>

using values::Type;

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
// Kinds of arithmetic.
enum { COMPUTE_F32 = 68, COMPUTE_F64 = 70, FAST_F16 = 74, FAST_BF16 = 75, FAST_TF32 = 77 };

struct Handle {
    void* stream;
    int math;
};

bool type_of(int number, Type& type) {
    switch (number) {
    case 0: return type = Type::F32, true;
    case 1: return type = Type::F64, true;
    case 2: return type = Type::F16, true;
    case 14: return type = Type::BF16, true;
    default: return false;
    }
}

// One matrix of column-major values.
struct Matrix {
    Type type;
    void* base;
    long long leading, stride;
    bool transposed;
};

struct Product {
    int m, n, k;
    double alpha, beta;
    Matrix a, b, c;
    bool tf32;
};

// `count` rows of k values each: of op(A), or columns of op(B).
template <typename T> std::vector<T> pack(const Matrix& x, const void* base, int count, int k, bool rows_are_leading, bool tf32) {
    std::vector<T> out((size_t)count * (size_t)k);
    for (int i = 0; i < count; i++)
        for (int p = 0; p < k; p++) {
            const T value = values::get<T>(x.type, base, rows_are_leading ? i + p * x.leading : p + i * x.leading);
            out[(size_t)i * (size_t)k + (size_t)p] = tf32 ? (T)values::to_tf32((float)value) : value;
        }
    return out;
}

template <typename T> void multiply(const Product& p, long long batch) {
    const auto at = [&](const Matrix& x) {
        return static_cast<char*>(x.base) + batch * x.stride * (long long)values::size(x.type);
    };
    const auto a = pack<T>(p.a, at(p.a), p.m, p.k, !p.a.transposed, p.tf32);
    const auto b = pack<T>(p.b, at(p.b), p.n, p.k, p.b.transposed, p.tf32);
    char* c = at(p.c);
    const size_t k = (size_t)p.k;
    values::divide((size_t)p.n, 2.0 * p.m * p.n * p.k, [&](size_t first, size_t end) {
        for (size_t j = first; j < end; j++)
            for (size_t i = 0; i < (size_t)p.m; i++) {
                const T *x = a.data() + i * k, *y = b.data() + j * k;
                T sum = 0;
                for (size_t q = 0; q < k; q++) sum += x[q] * y[q];
                const ptrdiff_t to = (ptrdiff_t)i + (ptrdiff_t)j * p.c.leading;
                // With a beta of 0, what lies there is not read: it may be anything.
                const T before = p.beta == 0 ? T(0) : (T)p.beta * values::get<T>(p.c.type, c, to);
                values::set<T>(p.c.type, c, to, (T)p.alpha * sum + before);
            }
    });
}

int refuse(const char* why) {
    fprintf(stderr, "emulator: cuBLAS: %s\n", why);
    return INVALID_VALUE;
}

int run(void* stream, const Product& p, bool f64, int batches) {
    if (p.m < 0 || p.n < 0 || p.k < 0 || batches < 0) return refuse("a negative size");
    const auto too_short = [](const Matrix& x, int rows, int columns) {
        return x.leading < std::max(1, x.transposed ? columns : rows);
    };
    if (too_short(p.a, p.m, p.k) || too_short(p.b, p.k, p.n) || too_short(p.c, p.m, p.n))
        return refuse("a leading dimension shorter than a column");
    later(stream, [=] {
        for (int batch = 0; batch < batches; batch++) {
            if (f64) multiply<double>(p, batch);
            else multiply<float>(p, batch);
        }
    });
    return SUCCESS;
}

} // namespace

extern "C" {

int cublasCreate_v2(Handle** handle) { return *handle = new Handle{}, SUCCESS; }
int cublasDestroy_v2(Handle* handle) { return delete handle, SUCCESS; }
int cublasSetStream_v2(Handle* handle, void* stream) { return handle->stream = stream, SUCCESS; }
int cublasGetStream_v2(Handle* handle, void** stream) { return *stream = handle->stream, SUCCESS; }
int cublasSetMathMode(Handle* handle, int mode) { return handle->math = mode, SUCCESS; }
int cublasGetMathMode(Handle* handle, int* mode) { return *mode = handle->math, SUCCESS; }
int cublasSetWorkspace_v2(Handle*, void*, size_t) { return SUCCESS; }
int cublasSetPointerMode_v2(Handle*, int mode) { return mode == 0 ? SUCCESS : NOT_SUPPORTED; }
int cublasGetVersion_v2(Handle*, int* version) { return *version = 130100, SUCCESS; }

int cublasGemmStridedBatchedEx(Handle* handle, int ta, int tb, int m, int n, int k, const void* alpha, void* a, int a_type,
                               int lda, long long a_stride, void* b, int b_type, int ldb, long long b_stride,
                               const void* beta, void* c, int c_type, int ldc, long long c_stride, int batches, int compute,
                               int) {
    Product p{};
    p.m = m, p.n = n, p.k = k;
    if (!type_of(a_type, p.a.type) || !type_of(b_type, p.b.type) || !type_of(c_type, p.c.type)) return NOT_SUPPORTED;
    const bool f64 = compute == COMPUTE_F64;
    if (!f64 && compute != COMPUTE_F32 && compute != FAST_TF32 && compute != FAST_BF16 && compute != FAST_F16)
        return refuse("sums of this type are not emulated");
    if (f64 != (p.c.type == Type::F64) || p.a.type != p.b.type) return refuse("types that do not go together");
    p.alpha = f64 ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
    p.beta = f64 ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
    p.a.base = a, p.a.leading = lda, p.a.stride = a_stride, p.a.transposed = ta != 0;
    p.b.base = b, p.b.leading = ldb, p.b.stride = b_stride, p.b.transposed = tb != 0;
    p.c.base = c, p.c.leading = ldc, p.c.stride = c_stride;
    // 3: the mode of the handle that allows TF32 for every product of floats.
    p.tf32 = p.a.type == Type::F32 && (compute == FAST_TF32 || (compute == COMPUTE_F32 && handle->math == 3));
    return run(handle->stream, p, f64, batches);
}

int cublasGemmEx(Handle* handle, int ta, int tb, int m, int n, int k, const void* alpha, void* a, int a_type, int lda, void* b,
                 int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc,
                                      0, 1, compute, algorithm);
}

int cublasSgemmStridedBatched(Handle* handle, int ta, int tb, int m, int n, int k, const float* alpha, void* a, int lda,
                              long long a_stride, void* b, int ldb, long long b_stride, const float* beta, void* c, int ldc,
                              long long c_stride, int batches) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, 0, lda, a_stride, b, 0, ldb, b_stride, beta, c, 0, ldc,
                                      c_stride, batches, COMPUTE_F32, 0);
}

int cublasDgemmStridedBatched(Handle* handle, int ta, int tb, int m, int n, int k, const double* alpha, void* a, int lda,
                              long long a_stride, void* b, int ldb, long long b_stride, const double* beta, void* c, int ldc,
                              long long c_stride, int batches) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, 1, lda, a_stride, b, 1, ldb, b_stride, beta, c, 1, ldc,
                                      c_stride, batches, COMPUTE_F64, 0);
}

int cublasSgemm_v2(Handle* handle, int ta, int tb, int m, int n, int k, const float* alpha, void* a, int lda, void* b, int ldb,
                   const float* beta, void* c, int ldc) {
    return cublasSgemmStridedBatched(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

int cublasDgemm_v2(Handle* handle, int ta, int tb, int m, int n, int k, const double* alpha, void* a, int lda, void* b, int ldb,
                   const double* beta, void* c, int ldc) {
    return cublasDgemmStridedBatched(handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);
}

} // extern "C"
