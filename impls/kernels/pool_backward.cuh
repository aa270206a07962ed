// The backward kernel: cells rebuilt from checkpoints, all gate gradients into one tensor.

namespace qb {

// Factors of the old state and of z in a step of backward_tile. Two kinds of steps are told to it
// by their gates alone, which makes their gate gradients 0: a held unit has f = 1 (and, in mode
// keep, i = 0), a step outside the sequence f = 1, i = 0, z = 0.
template <class K>
QB_HD void factors(const Thread<K>& me, float f, float i, bool valid, float* keep, float* admit) {
  mix<K::P, K::MASK ? ZONE_NONE : K::Z>(f, i, me.rest, K::KEEPS, keep, admit);
  if (K::Z == ZONE_EXPECT && !valid) *keep = 1.0f;  // p + (1 - p) * 1 may round
}

// One tile: `before` is the state before it, `flow` goes from the gradient of the state after the
// tile to that of the state before it; `sums` gathers the gradients of the bias.
template <class K, bool EDGE>
QB_HD void backward_tile(const Thread<K>& me, const Line<const typename K::T>& pre,
                         const Line<const typename K::T>& given, const Line<typename K::T>& dpre,
                         int hidden, int first, int buffer, Affine* exchange, const float* before,
                         float* flow, float (*sums)[K::V]) {
  typedef typename K::T T;
  constexpr int L = K::STEPS, V = K::V, LAST = K::LAST, O = K::P == POOL_F ? 0 : GATE_O;
  const int t = first + me.segment * L - me.shift;
  typename K::Packed raw[K::GATES][L], raw_dy[L];
  const T* from = pre.at(me.template readable<EDGE>(t));
  const T* from_dy = given.at(me.template readable<EDGE>(t));
#pragma unroll
  for (int l = 0; l < L; ++l) {
    if (EDGE) {
      from = pre.at(me.template readable<EDGE>(t + l));
      from_dy = given.at(me.template readable<EDGE>(t + l));
    }
#pragma unroll
    for (int g = 0; g < K::GATES; ++g) raw[g][l] = read<T, V>(from + (i64)g * hidden);
    raw_dy[l] = read<T, V>(from_dy);
    from += pre.step;  // one running address takes fewer registers than one per step
    from_dy += given.step;
  }

  float z[L][V], f[L][V], o[L][V], i[L][V], dy[L][V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const u32 held = K::MASK ? me.held(first, v) : 0u;
    float a = 1.0f, b = 0.0f, r = 0.0f;
#pragma unroll
    for (int l = 0; l < L; ++l) {
      const bool valid = me.template valid<EDGE>(t + l);
      float zv = me.tanh_gate(raw[GATE_Z][l].get(v), v);
      float fv = me.gate(GATE_F, raw[GATE_F][l].get(v), v);
      float iv = K::P == POOL_IFO ? me.gate(LAST, raw[LAST][l].get(v), v) : 0.0f;
      if (K::MASK) {
        float keep, admit;
        mix<K::P, K::Z>(fv, iv, me.slope((held >> l) & 1u), K::KEEPS, &keep, &admit);
        fv = keep;
        if (K::P == POOL_IFO) iv = admit;
      }
      z[l][v] = valid ? zv : 0.0f;
      f[l][v] = valid ? fv : 1.0f;
      i[l][v] = valid ? iv : 0.0f;
      o[l][v] = K::P == POOL_F ? 1.0f : me.output_gate(raw[O][l].get(v), v);
      dy[l][v] = valid ? raw_dy[l].get(v) : 0.0f;
      float keep, admit;
      factors<K>(me, f[l][v], i[l][v], valid, &keep, &admit);
      a *= keep;
      b = fmaf(keep, b, admit * z[l][v]);
      // A step's gradient reaches the segment's begin through its own and all earlier `keep`.
      r = fmaf(a, dy[l][v] * o[l][v], r);
    }
    exchange[slot<K, 2>(buffer, 0, me.segment, v, me.lane)] = Affine{a, b};
    exchange[slot<K, 2>(buffer, 1, me.segment, v, me.lane)] = Affine{a, r};
  }
  __syncthreads();

  float cell[V], back[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    float c = before[v], g = flow[v];
#pragma unroll 4
    for (int s = 0; s < K::SEGMENTS; ++s) {
      const float next = exchange[slot<K, 2>(buffer, 0, s, v, me.lane)].of(c);
      c = s < me.segment ? next : c;
    }
    cell[v] = c;
    back[v] = g;
#pragma unroll 4
    for (int s = K::SEGMENTS - 1; s >= 0; --s) {
      back[v] = s == me.segment ? g : back[v];
      g = exchange[slot<K, 2>(buffer, 1, s, v, me.lane)].of(g);
    }
    flow[v] = g;
  }

  float earlier[L][V];  // c_{t-1}
#pragma unroll
  for (int l = 0; l < L; ++l)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float keep, admit;
      factors<K>(me, f[l][v], i[l][v], me.template valid<EDGE>(t + l), &keep, &admit);
      earlier[l][v] = cell[v];
      cell[v] = fmaf(keep, cell[v], admit * z[l][v]);
    }
  T* to = dpre.at(t + L - 1);
#pragma unroll
  for (int l = L - 1; l >= 0; --l) {
    const bool valid = me.template valid<EDGE>(t + l);
    float grad[K::GATES][V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float slope = K::Z == ZONE_EXPECT ? me.rest : 1.0f;
      const float slope_i = K::KEEPS ? slope : 1.0f;
      float keep, admit, di = 0.0f;
      factors<K>(me, f[l][v], i[l][v], valid, &keep, &admit);
      const float dc = fmaf(dy[l][v], o[l][v], back[v]);
      gate_gradients<K::P>(dc, earlier[l][v], z[l][v], f[l][v], i[l][v], slope, slope_i, admit,
                           &grad[GATE_Z][v], &grad[GATE_F][v], &di);
      if (K::P != POOL_F) grad[O][v] = output_gradient(dy[l][v], cell[v], o[l][v]);
      if (K::P == POOL_IFO) grad[LAST][v] = di;
      back[v] = keep * dc;
      cell[v] = earlier[l][v];
#pragma unroll
      for (int g = 0; g < K::GATES; ++g) sums[g][v] += grad[g][v];
    }
    if (me.own && valid)
#pragma unroll
      for (int g = 0; g < K::GATES; ++g) write<T, V>(to + (i64)g * hidden, grad[g]);
    to -= dpre.step;
  }
}

// Sums over the segments of a block, through shared memory that no tile uses.
template <class K>
QB_HD void add_segments(const Thread<K>& me, float* meeting, const float (*sums)[K::V],
                        float* dbias, int hidden) {
  constexpr int V = K::V;
#pragma unroll
  for (int g = 0; g < K::GATES; ++g)
#pragma unroll
    for (int v = 0; v < V; ++v)
      meeting[((g * K::SEGMENTS + me.segment) * V + v) * K::LANES + me.lane] = sums[g][v];
  __syncthreads();
  if (!me.own) return;
  for (int g = me.segment; g < K::GATES; g += K::SEGMENTS)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float sum = 0.0f;
      for (int s = 0; s < K::SEGMENTS; ++s)
        sum += meeting[((g * K::SEGMENTS + s) * V + v) * K::LANES + me.lane];
      dbias[((i64)me.batch * K::GATES + g) * hidden + me.channel + v] = sum;
    }
}

// Threads of a multiprocessor for which the backward kernel saves registers: 96 or 128 each, more
// for gradients in evaluation, a rare wish. Left to itself the compiler saves more, and spills.
template <int Z, int BLOCK>
constexpr int BACK_THREADS = Z == ZONE_EXPECT ? 256 : BLOCK < 256 ? 640 : 512;

// Gradients of pool_forward. Arguments of the same name are those that it got; beyond them:
//   checkpoints [B, tiles, H]: what pool_forward with the same STEPS * SEGMENTS wrote; read only
//   dy [T, B, H] with any strides, 0 included (dy_channel = 1 where V = 2): gradient of y, not
//     looked at on padded steps; read only
//   dc_final [B, H]: gradient of c_final, read only; null: zero
//   dpre [T, B, G*H]: written, strides as `pre`, 0 on padded steps; may not be `pre`
//   dc0 [B, H]: written
//   dbias [B, G*H]: written, each sequence's part of the bias gradient, summed before rounding
// Dynamic shared memory: (8 + G) * SEGMENTS * LANES * V floats. Block, grid and alignment as
// above.
template <class T, int P, int Z, bool KEEPS, int V, int LANES, int SEGMENTS, int STEPS>
__global__ void __launch_bounds__(LANES* SEGMENTS,
                                  BACK_THREADS<Z, LANES * SEGMENTS> / (LANES * SEGMENTS))
    pool_backward(const T* __restrict__ pre, const float* __restrict__ checkpoints,
                  const T* __restrict__ dy, const float* __restrict__ dc_final,
                  T* __restrict__ dpre, float* __restrict__ dc0, float* __restrict__ dbias,
                  i64 dy_step, i64 dy_batch, i64 dy_channel, const float* __restrict__ bias,
                  const i64* __restrict__ lengths, const u64* __restrict__ seed,
                  const i64* __restrict__ rows, const i64* __restrict__ t0, int steps, int hidden,
                  int tiles, i64 pre_step, i64 pre_batch, u32 threshold, float rest, int layer,
                  int stream, int reverse) {
  typedef Kind<T, P, Z, KEEPS, V, LANES, SEGMENTS, STEPS> K;
  extern __shared__ Affine exchange[];
  const Common a = {bias,     lengths,   seed,      rows, t0,    steps,  hidden, tiles,
                    pre_step, pre_batch, threshold, rest, layer, stream, reverse};
  const Thread<K> me(a);
  const i64 place = (i64)me.batch * hidden + me.channel;
  const i64 offset = me.batch * pre_batch + me.channel;
  const Line<const T> gates(pre, pre_step, offset, me.length, reverse);
  const Line<T> out(dpre, pre_step, offset, me.length, reverse);
  const Line<const T> given(dy, dy_step, me.batch * dy_batch + me.channel * dy_channel, me.length,
                            reverse);
  float flow[V], sums[K::GATES][V] = {};
#pragma unroll
  for (int v = 0; v < V; ++v) flow[v] = dc_final ? dc_final[place + v] : 0.0f;

  const int end = me.shift + me.length;
  const int count = me.length > 0 ? (end + K::TILE - 1) / K::TILE : 0;
  for (int tile = count - 1; tile >= 0; --tile) {
    float before[V];
#pragma unroll
    for (int v = 0; v < V; ++v)
      before[v] = checkpoints[((i64)me.batch * tiles + tile) * hidden + me.channel + v];
    const int first = tile * K::TILE;
    if (first >= me.shift && first + K::TILE <= end)
      backward_tile<K, false>(me, gates, given, out, hidden, first, tile & 1, exchange, before,
                              flow, sums);
    else
      backward_tile<K, true>(me, gates, given, out, hidden, first, tile & 1, exchange, before,
                             flow, sums);
  }
  float* meeting = reinterpret_cast<float*>(exchange + 4 * SEGMENTS * K::SPAN);
  add_segments(me, meeting, sums, dbias, hidden);
  if (!me.own) return;
  if (me.segment == 0)
#pragma unroll
    for (int v = 0; v < V; ++v) dc0[place + v] = flow[v];
  const float zeros[2] = {0.0f, 0.0f};
  for (int t = me.length + me.segment; t < steps; t += SEGMENTS)
#pragma unroll
    for (int g = 0; g < K::GATES; ++g)
      write<T, V>(dpre + t * pre_step + offset + (i64)g * hidden, zeros);
}

}  // namespace qb
