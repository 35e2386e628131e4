// Attention in tiles with a running softmax (FlashAttention-2, arXiv:2307.08691): a block of threads has BLOCKS x 16 queries
// for each of its warps and walks over the keys that any of them sees, KEYS at a time.
//
// Also defined in front of this text: BLOCKS, KEYS, STAGES (of keys and values under way, 1 or 2), RESIDENT (thread blocks
// of a multiprocessor).

#define WARPS (THREADS / 32)
#define QUERIES (WARPS * BLOCKS * 16)
#define TILE (KEYS * ROW)
// The queries lie where keys and values come later, where that is large enough.
#if QUERIES <= KEYS * STAGES
#define QUERIES_AT (STAGES * TILE)
#define MEMORY (2 * STAGES * TILE)
#else
#define QUERIES_AT (2 * STAGES * TILE)
#define MEMORY (2 * STAGES * TILE + QUERIES * ROW)
#endif

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
attention_forward(const half_t *__restrict__ q, const half_t *__restrict__ k, const half_t *__restrict__ v,
                  half_t *__restrict__ y, float *__restrict__ stats, const __grid_constant__ Args a) {
    __shared__ __align__(16) half_t memory[MEMORY];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int heads = a.heads, queries = a.queries, keys = a.keys;
    const int row = blockIdx.x / heads, head = blockIdx.x % heads;
    const int kv_head = head / (heads / static_cast<int>(a.kv_heads));
    // Under a causal mask the last queries have most to do, so they come first.
    const int first = (gridDim.y - 1 - blockIdx.y) * QUERIES;
    const int mine = first + warp * BLOCKS * 16;
    const Seen seen(a, row);
    const Scores scores(a);

    q += row * a.q[0] + head * a.q[1];
    k += row * a.k[0] + kv_head * a.k[1];
    v += row * a.v[0] + kv_head * a.v[1];

    const int last = min(first + QUERIES, queries) - 1;
    const int begin = seen.from(first) / KEYS;
    const int end = seen.to(last) > seen.from(first) ? (seen.to(last) + KEYS - 1) / KEYS : begin;

    copy_tile<QUERIES>(memory + QUERIES_AT, q, a.q[2], first, queries);
    commit();
    if (begin < end) {
        copy_tile<KEYS>(memory, k, a.k[2], begin * KEYS, keys);
#if STAGES == 2
        copy_tile<KEYS>(memory + TILE, v, a.v[2], begin * KEYS, keys);
#endif
    }
    commit();
    wait<1>();
    __syncthreads();
    pair_t query[BLOCKS][D / 16][4];
#pragma unroll
    for (int block = 0; block < BLOCKS; block++)
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++)
            load(query[block][kk],
                 shared_address(memory + QUERIES_AT + (warp * BLOCKS + block) * 16 * ROW) + down_first() + kk * 32);
    if (QUERIES_AT < 2 * STAGES * TILE) __syncthreads();

    float acc[BLOCKS][D / 8][4] = {};
    float maximum[BLOCKS][2], total[BLOCKS][2];
#pragma unroll
    for (int block = 0; block < BLOCKS; block++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            maximum[block][half] = -INFINITE;
            total[block][half] = 0.0f;
        }

    for (int tile = begin; tile < end; tile++) {
        const int key = tile * KEYS;
        wait<0>();
        __syncthreads();
#if STAGES == 2
        const half_t *k_tile = memory + ((tile - begin) & 1) * 2 * TILE;
        const half_t *v_tile = k_tile + TILE;
        if (tile + 1 < end) {
            half_t *next = memory + ((tile + 1 - begin) & 1) * 2 * TILE;
            copy_tile<KEYS>(next, k, a.k[2], key + KEYS, keys);
            copy_tile<KEYS>(next + TILE, v, a.v[2], key + KEYS, keys);
        }
        commit();
#else
        half_t *k_tile = memory, *v_tile = memory + TILE;
        copy_tile<KEYS>(v_tile, v, a.v[2], key, keys);
        commit();
#endif
        float s[BLOCKS][KEYS / 8][4] = {};
        const unsigned k_at = shared_address(k_tile) + along_first();
#pragma unroll
        for (int kk = 0; kk < D / 16; kk++)
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                pair_t b[4];
                load(b, k_at + (n * 16 * ROW + kk * 16) * 2);
#pragma unroll
                for (int block = 0; block < BLOCKS; block++) {
                    multiply(s[block][2 * n], query[block][kk], b[0], b[1]);
                    multiply(s[block][2 * n + 1], query[block][kk], b[2], b[3]);
                }
            }
#if STAGES == 1
        __syncthreads();
        if (tile + 1 < end) copy_tile<KEYS>(k_tile, k, a.k[2], key + KEYS, keys);
        commit();
#endif
        const bool whole = seen.all(mine, mine + BLOCKS * 16 - 1, key, KEYS);
#pragma unroll
        for (int block = 0; block < BLOCKS; block++) {
#if SOFTCAP
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) s[block][n][e] = scores.bounded(s[block][n][e]);
#endif
            if (!whole) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int query_at = mine + block * 16 + half * 8 + (lane >> 2);
                    const int from = seen.from(query_at) - key - (lane & 3) * 2;
                    const int to = seen.to(query_at) - key - (lane & 3) * 2;
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++)
                            if (n * 8 + e < from || n * 8 + e >= to) s[block][n][half * 2 + e] = -INFINITE;
                }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float here = maximum[block][half];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
                    here = fmaxf(here, fmaxf(s[block][n][half * 2], s[block][n][half * 2 + 1]));
                here = fmaxf(here, __shfl_xor_sync(~0u, here, 1));
                here = fmaxf(here, __shfl_xor_sync(~0u, here, 2));
                // Where nothing has been seen yet, exponentials of -infinity, not of infinity less infinity.
                const float base = here == -INFINITE ? 0.0f : here * scores.factor;
                const float shrink = exp2_of(maximum[block][half] * scores.factor - base);
                maximum[block][half] = here;
                float sum = 0.0f;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float &x = s[block][n][half * 2 + e];
                        x = exp2_of(x * scores.factor - base);
                        sum += x;
                    }
                total[block][half] = total[block][half] * shrink + sum;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    acc[block][n][half * 2] *= shrink;
                    acc[block][n][half * 2 + 1] *= shrink;
                }
            }
        }
#if STAGES == 1
        wait<1>();
        __syncthreads();
#endif
        const unsigned v_at = shared_address(v_tile) + down_first();
#pragma unroll
        for (int kk = 0; kk < KEYS / 16; kk++) {
            pair_t p[BLOCKS][4];
#pragma unroll
            for (int block = 0; block < BLOCKS; block++) pack_block(p[block], s[block][2 * kk], s[block][2 * kk + 1]);
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                pair_t b[4];
                load_transposed(b, v_at + (kk * 16 * ROW + n * 16) * 2);
#pragma unroll
                for (int block = 0; block < BLOCKS; block++) {
                    multiply(acc[block][2 * n], p[block], b[0], b[1]);
                    multiply(acc[block][2 * n + 1], p[block], b[2], b[3]);
                }
            }
        }
    }

    wait<0>();
    __syncthreads();
    y += (row * a.queries * heads + head) * D;
    stats += blockIdx.x * a.stat_row;
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) {
        float inverse[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[block][half];
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            // A query that sees nothing has no value, and no gradient: the power of two of -infinity.
            inverse[half] = sum == 0.0f ? 0.0f : 1.0f / sum;
            const int at = mine + block * 16 + half * 8 + (lane >> 2);
            const float log_sum = maximum[block][half] * scores.factor + log2_of(sum);
            if ((lane & 3) == 0) stats[at] = sum == 0.0f || at >= queries ? INFINITE : log_sum;
        }
        half_t *out = memory + (warp * BLOCKS + block) * 16 * ROW;
        put_rows(out, acc[block], inverse[0], inverse[1]);
        __syncwarp();
        store_rows(y, heads * D, out, mine + block * 16, queries);
    }
}
