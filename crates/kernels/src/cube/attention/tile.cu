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

// Rows of a tile, 16 bytes longer than needed: eight rows' 16-byte pieces then lie in different banks.
#define ROW (D + 8)
#define PIECES (D / 8)
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

template <int N> __device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
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
        copy_piece(to + (row * ROW + piece * 8) * 2, p, real);
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

// Where a lane's row of the four 8x8 matrices lies in a 16x16 block, in bytes. Left sides, and right sides read
// transposed, go down the rows first; right sides read as they lie go along the columns first.
__device__ __forceinline__ unsigned down_first() {
    int lane = threadIdx.x & 31;
    return ((lane & 15) * ROW + (lane >> 4) * 8) * 2;
}

__device__ __forceinline__ unsigned along_first() {
    int lane = threadIdx.x & 31;
    return (((lane & 7) + (lane >> 4) * 8) * ROW + ((lane >> 3) & 1) * 8) * 2;
}

// c[16x8] += a[16x16] b[16x8]
__device__ __forceinline__ void multiply(float c[4], const pair_t a[4], pair_t b0, pair_t b1) {
#if HALF
#define TYPES "f16.f16"
#else
#define TYPES "bf16.bf16"
#endif
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

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

// The left side of a product, from the accumulators of two neighbouring 16x8 blocks.
__device__ __forceinline__ void pack_block(pair_t a[4], const float left[4], const float right[4]) {
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
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

// 16 rows of accumulators into a tile, as halves.
__device__ __forceinline__ void put_rows(half_t *tile, float acc[D / 8][4], float upper, float lower) {
    int lane = threadIdx.x & 31;
    half_t *at = tile + (lane >> 2) * ROW + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        *reinterpret_cast<pair_t *>(at + n * 8) = pack(acc[n][0] * upper, acc[n][1] * upper);
        *reinterpret_cast<pair_t *>(at + 8 * ROW + n * 8) = pack(acc[n][2] * lower, acc[n][3] * lower);
    }
}

// 16 rows of a tile into memory, by one warp, up to the last row that there is.
__device__ __forceinline__ void store_rows(half_t *to, long long stride, const half_t *tile, int first, int rows) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < (16 * PIECES + 31) / 32; i++) {
        int at = lane + i * 32;
        int row = at / PIECES, piece = at % PIECES;
        if (at < 16 * PIECES && first + row < rows) {
            int4 piece_of = *reinterpret_cast<const int4 *>(tile + row * ROW + piece * 8);
            *reinterpret_cast<int4 *>(to + (first + row) * stride + piece * 8) = piece_of;
        }
    }
}
