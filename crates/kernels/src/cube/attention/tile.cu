// What the attention kernels share: tiles in shared memory, the tensor cores' instructions, and who sees whom.
//
// Defined in front of this text: D, the width of a head, a multiple of 16; HALF, 1 for f16 and 0 for bf16; THREADS;
// CAUSAL, WINDOW and SOFTCAP, 0 or 1; PADDED, 0 or of how many rows of a batch there is room for their bounds.

typedef unsigned short half_t;
typedef unsigned int pair_t; // two of them

struct Args {
    long long batch, heads, kv_heads, queries, keys;
    // The position of the first query, and how many keys up to its own a query sees.
    long long causal_from, window;
    // How many statistics a head has: the queries, rounded up to whole tiles.
    long long stat_row;
    // Of the batch, the heads and the positions, in elements.
    long long q[3], k[3], v[3], dy[3];
    double scale, cap;
#if PADDED
    // Of each row of the batch, the first key that counts, and in the upper half where they end.
    unsigned long long bounds[PADDED];
#endif
};

// Whether groups of four warps multiply by reading the right side from shared memory themselves, as Hopper has it: then a
// tile is made of columns of 64, each row's 16-byte pieces exchanged by the number of the row. Else every warp loads the
// right side, and a row is 16 bytes longer than needed. In both, the same piece of eight rows lies in different banks.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && D % 64 == 0
#define GROUPED 1
#else
#define GROUPED 0
#endif
#define ROW (D + 8)
#define PIECES (D / 8)
#define TILE_OF(ROWS) ((ROWS) * (GROUPED ? D : ROW))
#define INFINITE __int_as_float(0x7f800000)
#define LOG2E 1.4426950408889634f

__device__ __forceinline__ unsigned shared_address(const void *p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// 16 bytes, or zeros.
__device__ __forceinline__ void copy_piece(unsigned to, const void *from, bool real) {
    int size = real ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(size) : "memory");
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the last N groups of copies are there, for all threads.
template <int N> __device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#if GROUPED
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    __syncthreads();
}

// Where a piece of 16 bytes lies in a tile.
template <int ROWS> __device__ __forceinline__ int place(int row, int piece) {
#if GROUPED
    return (piece / 8) * ROWS * 64 + row * 64 + ((piece ^ row) & 7) * 8;
#else
    return row * ROW + piece * 8;
#endif
}

// Rows `first..` of a matrix into a tile; zeros past the last one.
template <int ROWS>
__device__ __forceinline__ void copy_tile(half_t *tile, const half_t *from, long long stride, int first, int rows) {
    unsigned to = shared_address(tile);
#pragma unroll
    for (int i = 0; i < (ROWS * PIECES + THREADS - 1) / THREADS; i++) {
        int at = threadIdx.x + i * THREADS;
        if (ROWS * PIECES % THREADS != 0 && at >= ROWS * PIECES) break;
        int row = at / PIECES, piece = at % PIECES;
        bool real = first + row < rows;
        const half_t *p = from + (real ? first + row : 0) * stride + piece * 8;
        copy_piece(to + place<ROWS>(row, piece) * 2, p, real);
    }
}

__device__ __forceinline__ void load(pair_t r[4], unsigned from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from));
}

__device__ __forceinline__ void load_transposed(pair_t r[4], unsigned from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from));
}

// A warp's 16 rows of a tile as the left sides of products.
template <int ROWS> __device__ __forceinline__ void load_left(pair_t r[D / 16][4], const half_t *tile, int first) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++)
        load(r[kk], shared_address(tile + place<ROWS>(first + (lane & 15), kk * 2 + (lane >> 4))));
}

#if HALF
#define TYPES "f16.f16"
#else
#define TYPES "bf16.bf16"
#endif

#if GROUPED
#define FOUR(C) "+f"(C[0]), "+f"(C[1]), "+f"(C[2]), "+f"(C[3])

// 32 or 64 columns (+)= a[16 of each warp x 16] b, where b lies in shared memory.
template <int TRANSPOSED>
__device__ __forceinline__ void group_multiply(float (&c)[4][4], const pair_t a[4], unsigned long long b, int add) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %21, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32." TYPES
                 " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, p, 1, 1, %22;}"
                 : FOUR(c[0]), FOUR(c[1]), FOUR(c[2]), FOUR(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TRANSPOSED));
}

template <int TRANSPOSED>
__device__ __forceinline__ void group_multiply(float (&c)[8][4], const pair_t a[4], unsigned long long b, int add) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES
                 " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"
                 "%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, %38;}"
                 : FOUR(c[0]), FOUR(c[1]), FOUR(c[2]), FOUR(c[3]), FOUR(c[4]), FOUR(c[5]), FOUR(c[6]), FOUR(c[7])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TRANSPOSED));
}

// Rows of 128 bytes, eight of them 1024 bytes from the next eight.
__device__ __forceinline__ unsigned long long descriptor(const half_t *at) {
    return (1ull << 62) | (64ull << 32) | (1ull << 16) | ((shared_address(at) & 0x3ffff) >> 4);
}

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// That these numbers are what the products left.
template <int N> __device__ __forceinline__ void settle(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) asm volatile("" : FOUR(c[n])::"memory");
}

// c = a b^T, b some rows of a tile.
template <int ROWS, int N>
__device__ __forceinline__ void times_rows(float (&c)[N / 8][4], const pair_t (&a)[D / 16][4], const half_t *tile, int first) {
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++)
        group_multiply<0>(c, a[kk], descriptor(tile + (kk / 4) * ROWS * 64 + first * 64 + (kk % 4) * 16), kk > 0);
}

// c += a b, b some rows of a tile.
template <int ROWS, int N>
__device__ __forceinline__ void times_columns(float (&c)[D / 8][4], const pair_t (&a)[N / 16][4], const half_t *tile, int first) {
#pragma unroll
    for (int kk = 0; kk < N / 16; kk++)
#pragma unroll
        for (int half = 0; half < D / 64; half++)
            group_multiply<1>(reinterpret_cast<float (&)[8][4]>(c[half * 8]), a[kk],
                              descriptor(tile + half * ROWS * 64 + (first + kk * 16) * 64), 1);
}

// The assembler up to CUDA 13.0 takes registers that hold the left side of a product through all of a loop for free once
// the product is done, and writes the left side of another product of the loop over them. It has been seen to where both
// products have the same shape, so there every round gets new ones: what it differs by is 0, which only we know.
struct Renewed {
    pair_t now[D / 16][4];

    __device__ __forceinline__ Renewed(const Args &a, const pair_t (&of)[D / 16][4], int round) {
        const pair_t zero = static_cast<pair_t>(a.batch >> 32) & round;
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
            for (int i = 0; i < 4; i++) now[kk][i] = of[kk][i] ^ zero;
    }
};
#else
// c[16x8] += a[16x16] b[16x8]
__device__ __forceinline__ void multiply(float c[4], const pair_t a[4], pair_t b0, pair_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void begin_products() {}
__device__ __forceinline__ void end_products() {}
template <int N> __device__ __forceinline__ void settle(float (&)[N][4]) {}

// c = a b^T, b some rows of a tile.
template <int ROWS, int N>
__device__ __forceinline__ void times_rows(float (&c)[N / 8][4], const pair_t (&a)[D / 16][4], const half_t *tile, int first) {
    int lane = threadIdx.x & 31;
    const unsigned at = shared_address(tile + (first + (lane & 7) + (lane >> 4) * 8) * ROW + ((lane >> 3) & 1) * 8);
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) c[n][e] = 0.0f;
#pragma unroll
    for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            pair_t b[4];
            load(b, at + (n * 16 * ROW + kk * 16) * 2);
            multiply(c[2 * n], a[kk], b[0], b[1]);
            multiply(c[2 * n + 1], a[kk], b[2], b[3]);
        }
}

// c += a b, b some rows of a tile.
template <int ROWS, int N>
__device__ __forceinline__ void times_columns(float (&c)[D / 8][4], const pair_t (&a)[N / 16][4], const half_t *tile, int first) {
    int lane = threadIdx.x & 31;
    const unsigned at = shared_address(tile + (first + (lane & 15)) * ROW + (lane >> 4) * 8);
#pragma unroll
    for (int kk = 0; kk < N / 16; kk++)
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            pair_t b[4];
            load_transposed(b, at + (kk * 16 * ROW + n * 16) * 2);
            multiply(c[2 * n], a[kk], b[0], b[1]);
            multiply(c[2 * n + 1], a[kk], b[2], b[3]);
        }
}
#endif

__device__ __forceinline__ pair_t pack(float low, float high) {
    pair_t r;
#if HALF
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#endif
    return r;
}

__device__ __forceinline__ float2 unpack(pair_t p) {
    float2 r;
#if HALF
    asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}" : "=f"(r.x), "=f"(r.y) : "r"(p));
#else
    r.x = __uint_as_float(p << 16);
    r.y = __uint_as_float(p & 0xffff0000u);
#endif
    return r;
}

// The left side of a product that needs no new registers.
struct Kept {
    const pair_t (&now)[D / 16][4];

    __device__ __forceinline__ Kept(const Args &, const pair_t (&of)[D / 16][4], int) : now(of) {}
};

// Accumulators as the left side of a product.
template <int N> __device__ __forceinline__ void pack_left(pair_t (&a)[N / 2][4], const float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
        a[n / 2][(n % 2) * 2] = pack(c[n][0], c[n][1]);
        a[n / 2][(n % 2) * 2 + 1] = pack(c[n][2], c[n][3]);
    }
}

__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float log2_of(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float tanh_of(float x) { return 1.0f - 2.0f / (1.0f + exp2_of(x * (2.0f * LOG2E))); }

// What is made of products before they become powers of two: their factor alone, or under a bound `cap tanh(x / cap)`.
struct Scores {
    float factor, inner, cap, inverse_cap;

    __device__ __forceinline__ Scores(const Args &a) {
        float scale = static_cast<float>(a.scale);
        cap = static_cast<float>(a.cap);
        inverse_cap = 1.0f / cap;
        inner = scale * inverse_cap;
        factor = SOFTCAP ? LOG2E : scale * LOG2E;
    }

    // To be multiplied by `factor`.
    __device__ __forceinline__ float bounded(float product) const {
        return SOFTCAP ? cap * tanh_of(product * inner) : product;
    }

    // The derivative of `bounded` by its argument over the scale.
    __device__ __forceinline__ float slope(float bounded) const {
        float t = bounded * inverse_cap;
        return SOFTCAP ? 1.0f - t * t : 1.0f;
    }
};

// The keys `from(query)..to(query)` that a query of one row of the batch sees.
struct Seen {
    int first, window, left, end;

    __device__ __forceinline__ Seen(const Args &a, int row) {
        first = static_cast<int>(a.causal_from) + 1;
        window = static_cast<int>(a.window);
        left = 0;
        end = static_cast<int>(a.keys);
#if PADDED
        left = static_cast<int>(a.bounds[row] & 0xffffffffu);
        end = min(end, static_cast<int>(a.bounds[row] >> 32));
#endif
    }

    __device__ __forceinline__ int from(int query) const {
        return WINDOW ? max(left, first + query - window) : left;
    }

    __device__ __forceinline__ int to(int query) const { return CAUSAL ? min(end, first + query) : end; }

    // Whether each of these queries sees each of these keys.
    __device__ __forceinline__ bool all(int query, int last_query, int key, int keys) const {
        return from(last_query) <= key && key + keys <= to(query);
    }

    // Whether none of these queries sees any of these keys.
    __device__ __forceinline__ bool none(int query, int last_query, int key, int keys) const {
        return to(last_query) <= key || key + keys <= from(query);
    }
};

// A warp's 16 rows of accumulators, times a factor for the upper and the lower eight, into memory, up to the last row that
// there is. They go through shared memory, so that 16 bytes at a time are written.
__device__ __forceinline__ void store_rows(half_t *to, long long stride, float (&acc)[D / 8][4], float upper, float lower,
                                           half_t *through, int first, int rows) {
    int lane = threadIdx.x & 31;
    half_t *at = through + (lane >> 2) * ROW + (lane & 3) * 2;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        *reinterpret_cast<pair_t *>(at + n * 8) = pack(acc[n][0] * upper, acc[n][1] * upper);
        *reinterpret_cast<pair_t *>(at + 8 * ROW + n * 8) = pack(acc[n][2] * lower, acc[n][3] * lower);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < (16 * PIECES + 31) / 32; i++) {
        int piece = lane + i * 32, row = piece / PIECES;
        piece %= PIECES;
        if (row < 16 && first + row < rows)
            *reinterpret_cast<int4 *>(to + (first + row) * stride + piece * 8) =
                *reinterpret_cast<const int4 *>(through + row * ROW + piece * 8);
    }
}
