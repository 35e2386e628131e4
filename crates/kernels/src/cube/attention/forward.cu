// Attention in tiles with a running softmax (FlashAttention-2, arXiv:2307.08691): each warp has 16 queries, and a block of
// threads walks over the keys that any of its own sees, KEYS at a time.
//
// Also defined in front of this text: KEYS; STAGES, of keys and values under way, 1 or 2; RESIDENT, thread blocks of a
// multiprocessor.

#if GROUPED
#define Left Renewed
#else
#define Left Kept
#endif
#define QUERIES (THREADS / 2)
#define TILE TILE_OF(KEYS)
// The queries lie where the last keys and values of the first round come.
#define QUERIES_AT (2 * STAGES * TILE - TILE_OF(QUERIES))

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
attention_forward(const half_t *__restrict__ q, const half_t *__restrict__ k, const half_t *__restrict__ v,
                  half_t *__restrict__ y, float *__restrict__ stats, const __grid_constant__ Args a) {
    __shared__ __align__(1024) half_t memory[2 * STAGES * TILE];
    static_assert(QUERIES <= KEYS, "room for the queries behind the first keys");
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int heads = a.heads, queries = a.queries, keys = a.keys;
    const int row = blockIdx.x / heads, head = blockIdx.x % heads;
    const int kv_head = head / (heads / static_cast<int>(a.kv_heads));
    // Under a causal mask the last queries have most to do, so they come first.
    const int first = (gridDim.y - 1 - blockIdx.y) * QUERIES;
    const int mine = first + warp * 16;
    const Seen seen(a, row);
    const Scores scores(a);

    q += row * a.q[0] + head * a.q[1];
    k += row * a.k[0] + kv_head * a.k[1];
    v += row * a.v[0] + kv_head * a.v[1];
    y += (row * a.queries * heads + head) * D;
    stats += blockIdx.x * a.stat_row;

    const int last = min(first + QUERIES, queries) - 1;
    const int begin = seen.from(first) / KEYS;
    const int end = seen.to(last) > seen.from(first) ? (seen.to(last) + KEYS - 1) / KEYS : begin;

    copy_tile<QUERIES>(memory + QUERIES_AT, q, a.q[2], first, queries);
    commit();
    if (begin < end) {
        copy_tile<KEYS>(memory, k, a.k[2], begin * KEYS, keys);
        if (STAGES == 2) copy_tile<KEYS>(memory + TILE, v, a.v[2], begin * KEYS, keys);
    }
    commit();
    wait<1>();
    pair_t query[D / 16][4];
    load_left<QUERIES>(query, memory + QUERIES_AT, warp * 16);

    float acc[D / 8][4] = {};
    float maximum[2] = {-INFINITE, -INFINITE}, total[2] = {};
    for (int tile = begin; tile < end; tile++) {
        const int key = tile * KEYS;
        wait<0>();
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
        float s[KEYS / 8][4];
        const Left left(a, query, tile);
        begin_products();
        times_rows<KEYS, KEYS>(s, left.now, k_tile, 0);
        end_products();
        settle(s);
#if STAGES == 1
        __syncthreads();
        if (tile + 1 < end) copy_tile<KEYS>(k_tile, k, a.k[2], key + KEYS, keys);
        commit();
#endif
#if SOFTCAP
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] = scores.bounded(s[n][e]);
#endif
        if (!seen.all(mine, mine + 15, key, KEYS)) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int query_at = mine + half * 8 + (lane >> 2);
                const int from = seen.from(query_at) - key - (lane & 3) * 2;
                const int to = seen.to(query_at) - key - (lane & 3) * 2;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++)
                        if (n * 8 + e < from || n * 8 + e >= to) s[n][half * 2 + e] = -INFINITE;
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float here = maximum[half];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) here = fmaxf(here, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
            here = fmaxf(here, __shfl_xor_sync(~0u, here, 1));
            here = fmaxf(here, __shfl_xor_sync(~0u, here, 2));
            // Where nothing has been seen yet, powers of -infinity, not of infinity less infinity.
            const float base = here == -INFINITE ? 0.0f : here * scores.factor;
            const float shrink = exp2_of(maximum[half] * scores.factor - base);
            maximum[half] = here;
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float &x = s[n][half * 2 + e];
                    x = exp2_of(x * scores.factor - base);
                    sum += x;
                }
            total[half] = total[half] * shrink + sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                acc[n][half * 2] *= shrink;
                acc[n][half * 2 + 1] *= shrink;
            }
        }
        pair_t p[KEYS / 16][4];
        pack_left(p, s);
        if (STAGES == 1) wait<1>();
        begin_products();
        times_columns<KEYS, KEYS>(acc, p, v_tile, 0);
        end_products();
        settle(acc);
    }

    wait<0>();
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[half];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        // A query that sees nothing has no value, and no gradient: the power of two of -infinity.
        inverse[half] = sum == 0.0f ? 0.0f : 1.0f / sum;
        const int at = mine + half * 8 + (lane >> 2);
        const float log_sum = maximum[half] * scores.factor + log2_of(sum);
        if ((lane & 3) == 0) stats[at] = sum == 0.0f || at >= queries ? INFINITE : log_sum;
    }
    store_rows(y, heads * D, acc, inverse[0], inverse[1], memory + warp * 16 * ROW, mine, queries);
}
