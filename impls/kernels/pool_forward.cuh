// The forward kernel: gates in, y and the final state out, checkpoints for the backward kernel.

namespace qb {

// One tile: reads gates, writes y; `carry` goes from the state before the tile to that after it.
// Only where EDGE is set may positions lie outside the sequence.
template <class K, bool EDGE>
QB_HD void forward_tile(const Thread<K>& me, const Line<const typename K::T>& pre,
                        const Line<typename K::T>& y, int hidden, int first, int buffer,
                        Affine* exchange, float* carry) {
  typedef typename K::T T;
  constexpr int L = K::STEPS, V = K::V;
  const int t = first + me.segment * L - me.shift;
  typename K::Packed raw[K::GATES][L];
  const T* from = pre.at(me.template readable<EDGE>(t));
#pragma unroll
  for (int l = 0; l < L; ++l) {
    if (EDGE) from = pre.at(me.template readable<EDGE>(t + l));
#pragma unroll
    for (int g = 0; g < K::GATES; ++g) raw[g][l] = read<T, V>(from + (i64)g * hidden);
    from += pre.step;  // one running address takes fewer registers than one per step
  }

  float keep[L][V], term[L][V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const u32 held = K::MASK ? me.held(first, v) : 0u;
    float a = 1.0f, b = 0.0f;
#pragma unroll
    for (int l = 0; l < L; ++l) {
      const bool valid = me.template valid<EDGE>(t + l);
      const float z = me.tanh_gate(raw[GATE_Z][l].get(v), v);
      const float f = me.gate(GATE_F, raw[GATE_F][l].get(v), v);
      const float i = K::P == POOL_IFO ? me.gate(K::LAST, raw[K::LAST][l].get(v), v) : 0.0f;
      float k, admit;
      mix<K::P, K::Z>(f, i, me.slope((held >> l) & 1u), K::KEEPS, &k, &admit);
      keep[l][v] = valid ? k : 1.0f;
      term[l][v] = valid ? admit * z : 0.0f;
      a *= keep[l][v];
      b = fmaf(keep[l][v], b, term[l][v]);
    }
    exchange[slot<K, 1>(buffer, 0, me.segment, v, me.lane)] = Affine{a, b};
  }
  __syncthreads();

  float c[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    float walk = carry[v];
    c[v] = walk;
#pragma unroll
    for (int s = 0; s < K::SEGMENTS; ++s) {
      if (s == me.segment) c[v] = walk;
      walk = exchange[slot<K, 1>(buffer, 0, s, v, me.lane)].of(walk);
    }
    carry[v] = walk;
  }
  T* to = y.at(t);
#pragma unroll
  for (int l = 0; l < L; ++l) {
    float out[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      c[v] = fmaf(keep[l][v], c[v], term[l][v]);
      out[v] = c[v];
      if (K::P != POOL_F) out[v] *= me.output_gate(raw[K::P ? GATE_O : 0][l].get(v), v);
    }
    if (me.own && me.template valid<EDGE>(t + l)) write<T, V>(to, out);
    to += y.step;
  }
}

// Threads of a multiprocessor for which the forward kernel saves registers: 64 to 128 each.
template <int P, int Z, int V, int BLOCK>
constexpr int THREADS = V == 2 ? (Z == ZONE_HOLD || P == POOL_IFO ? 512 : 640)
                               : (Z == ZONE_HOLD || BLOCK > 128 ? 768 : 1024);

// y and the final state of one layer's pooling.
//   pre [T, B, G*H]: pre-activations, channel innermost, gate g at offset g*H; read only
//   c0 [B, H]: state before the first step; read only
//   y [T, B, H]: written in natural time, 0 on padded steps; strides y_step, y_batch
//   c_final [B, H]: written, the state after each sequence's last processed step
//   checkpoints [B, tiles, H]: written, the state before each tile; null: not kept
// Dynamic shared memory: 4 * SEGMENTS * LANES * V floats. Block: LANES * SEGMENTS threads. Grid:
// B * ceil(H / (LANES * V)) blocks. With V = 2 strides and H are even, pointers 4-byte aligned.
template <class T, int P, int Z, bool KEEPS, int V, int LANES, int SEGMENTS, int STEPS>
__global__ void __launch_bounds__(LANES* SEGMENTS,
                                  THREADS<P, Z, V, LANES * SEGMENTS> / (LANES * SEGMENTS))
    pool_forward(const T* __restrict__ pre, const float* __restrict__ c0, T* __restrict__ y,
                 float* __restrict__ c_final, float* __restrict__ checkpoints, i64 y_step,
                 i64 y_batch, const float* __restrict__ bias, const i64* __restrict__ lengths,
                 const u64* __restrict__ seed, const i64* __restrict__ rows,
                 const i64* __restrict__ t0, int steps, int hidden, int tiles, i64 pre_step,
                 i64 pre_batch, u32 threshold, float rest, int layer, int stream, int reverse) {
  typedef Kind<T, P, Z, KEEPS, V, LANES, SEGMENTS, STEPS> K;
  extern __shared__ Affine exchange[];
  const Common a = {bias,     lengths,   seed,      rows, t0,    steps,  hidden, tiles,
                    pre_step, pre_batch, threshold, rest, layer, stream, reverse};
  const Thread<K> me(a);
  const i64 place = (i64)me.batch * hidden + me.channel;
  const Line<const T> gates(pre, pre_step, me.batch * pre_batch + me.channel, me.length, reverse);
  const Line<T> out(y, y_step, me.batch * y_batch + me.channel, me.length, reverse);
  float carry[V];
#pragma unroll
  for (int v = 0; v < V; ++v) carry[v] = c0[place + v];

  const int end = me.shift + me.length;
  const int count = me.length > 0 ? (end + K::TILE - 1) / K::TILE : 0;
  for (int tile = 0; tile < count; ++tile) {
    if (checkpoints && me.segment == 0 && me.own)
#pragma unroll
      for (int v = 0; v < V; ++v)
        checkpoints[((i64)me.batch * tiles + tile) * hidden + me.channel + v] = carry[v];
    const int first = tile * K::TILE;
    if (first >= me.shift && first + K::TILE <= end)
      forward_tile<K, false>(me, gates, out, hidden, first, tile & 1, exchange, carry);
    else
      forward_tile<K, true>(me, gates, out, hidden, first, tile & 1, exchange, carry);
  }
  if (!me.own) return;
  const float zeros[2] = {0.0f, 0.0f};
  for (int t = me.length + me.segment; t < steps; t += SEGMENTS)
    write<T, V>(y + t * y_step + me.batch * y_batch + me.channel, zeros);
  if (me.segment == 0)
#pragma unroll
    for (int v = 0; v < V; ++v) c_final[place + v] = carry[v];
}

}  // namespace qb
