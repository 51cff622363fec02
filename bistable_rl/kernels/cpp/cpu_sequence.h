// A whole sequence, forward and backward.
//
// Each worker owns a range of the batch and never waits for another. It cuts time into chunks so short that a chunk's
// pre-activations stay in its L2 cache: projects the chunk's input, runs its steps, goes on. Backward, the gradients
// of the parameters are summed by each worker for itself, and in the workers' order at the end.

static const int64_t CHUNK_BYTES = 256 * 1024, SLICE_ROWS = 128;

struct Sizes {
    int kind;
    int64_t T, B, I, H, padded;
    int64_t blocks;                  // of a row of P
    int64_t recurrent;               // blocks [0, recurrent) are fed by W_hh
    int64_t in_first, in_blocks;     // blocks [in_first, in_first + in_blocks) are fed by W_ih
    int64_t ldp, ldh, ldx, x_padded; // row strides
    bool thin;                       // I = 1: the projection is a product of vectors
};

// A row stride of at least n numbers and an odd number of cache lines: rows 1 or 2 KB apart would all fall into the
// same few sets of the cache.
INLINE int64_t odd_lines(int64_t n) {
    const int64_t lines = (n * (int64_t)sizeof(real) + 63) / 64;
    return (lines | 1) * (64 / (int64_t)sizeof(real));
}

FUNCTION void find_sizes(Sizes* z, int kind, int64_t T, int64_t B, int64_t I, int64_t H) {
    z->kind = kind, z->T = T, z->B = B, z->I = I, z->H = H, z->padded = (H + 15) / 16 * 16;
    z->blocks = kind == KIND_BRC || kind == KIND_NBRC ? 3 : 4;
    z->recurrent = kind == KIND_BRC ? 0 : z->blocks - (kind != KIND_LSTM);
    z->in_first = kind == KIND_GRU;
    z->in_blocks = z->blocks - z->in_first;
    z->x_padded = (I + 15) / 16 * 16;
    z->ldp = odd_lines(z->blocks * z->padded);
    z->ldh = odd_lines(z->padded);
    z->ldx = odd_lines(z->x_padded);
    z->thin = I == 1;
}

// Which gate of the parameters (rows g H ... of weight_hh) feeds block b: the GRU's q comes first here, last there.
INLINE int64_t recurrent_gate(const Sizes* z, int64_t b) { return z->kind == KIND_GRU ? (b + 2) % 3 : b; }

// ---- packed parameters ----------------------------------------------------------------------------------------

struct Weights {
    real* bias;       // (blocks, padded)
    real* input;      // thin: (blocks, padded); else panels of W_ihᵀ (I, in_blocks * padded)
    real* recurrent;  // panels of W_hhᵀ (H, recurrent * padded); brc: w (2, padded)
};

FUNCTION void take_weights(Carver* c, const Sizes* z, Weights* w) {
    w->bias = (real*)take(c, z->blocks * z->padded * sizeof(real));
    w->input = (real*)take(c, (z->thin ? z->blocks : z->I * z->in_blocks) * z->padded * sizeof(real));
    w->recurrent = (real*)take(c, (z->kind == KIND_BRC ? 2 : z->H * z->recurrent) * z->padded * sizeof(real));
}

// to = panels of the transpose of gate `gate` of `from` (gates * H, depth), as columns of block b of `blocks`.
FUNCTION void pack_gate(real* to, const real* from, const Sizes* z, int64_t gate, int64_t b, int64_t blocks,
                        int64_t depth) {
    const int64_t columns = blocks * z->padded;
    for (int64_t j = 0; j < z->padded; j += LANES) {
        const int64_t column = b * z->padded + j, c = column / PANEL * PANEL;
        const int64_t width = columns - c < PANEL ? columns - c : PANEL;
        const int64_t rows = z->H - j < LANES ? z->H - j : LANES;  // may be below 1
        real* out = to + c * depth + (column - c);
        const real* in = from + (gate * z->H + j) * depth;
        int64_t k = 0;
        for (; k + LANES <= depth; k += LANES) {
            vec v[LANES];
            if (rows == LANES) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; ++i) v[i] = load(in + i * depth + k);
            } else {
                for (int i = 0; i < LANES; ++i) v[i] = i < rows ? load(in + i * depth + k) : (vec){};
            }
            transpose(v);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) store(out + (k + i) * width, v[i]);
        }
        for (; k < depth; ++k)
            for (int i = 0; i < LANES; ++i) out[k * width + i] = i < rows ? in[i * depth + k] : 0;
    }
}

FUNCTION void pack_weights(const Call* call, const Sizes* z, Weights* w) {
    const real *w_ih = (const real*)call->weight_ih, *w_hh = (const real*)call->weight_hh;
    const real *b_ih = (const real*)call->bias_ih, *b_hh = (const real*)call->bias_hh;
    const int64_t H = z->H, J = z->padded;
    memset(w->bias, 0, z->blocks * J * sizeof(real));
    for (int64_t g = 0; g < z->in_blocks; ++g)
        for (int64_t j = 0; j < H && b_ih && g * H < call->bias_ih_size; ++j)
            w->bias[(z->in_first + g) * J + j] += b_ih[g * H + j];
    for (int64_t b = 0; b < z->recurrent; ++b)
        for (int64_t j = 0; j < H && b_hh; ++j) w->bias[b * J + j] += b_hh[recurrent_gate(z, b) * H + j];
    if (z->thin) {
        memset(w->input, 0, z->blocks * J * sizeof(real));
        for (int64_t g = 0; g < z->in_blocks; ++g)
            memcpy(w->input + (z->in_first + g) * J, w_ih + g * H, H * sizeof(real));
    } else {
        for (int64_t g = 0; g < z->in_blocks; ++g) pack_gate(w->input, w_ih, z, g, g, z->in_blocks, z->I);
    }
    if (z->kind == KIND_BRC)
        for (int g = 0; g < 2; ++g) copy_in(w->recurrent + g * J, w_hh + g * H, H, J);
    for (int64_t b = 0; b < z->recurrent; ++b)
        pack_gate(w->recurrent, w_hh, z, recurrent_gate(z, b), b, z->recurrent, H);
}

// For the way back: panels of W itself, gate by gate along k, each gate's rows padded: (blocks * padded, columns).
FUNCTION void pack_back(real* to, const real* from, int64_t H, int64_t J, const int64_t* gates, int64_t blocks,
                        int64_t width, int64_t columns) {
    const int64_t depth = blocks * J;
    for (int64_t b = 0; b < blocks; ++b)
        for (int64_t j = 0; j < J; ++j) {
            const real* row = from + (gates[b] * H + j) * width;
            for (int64_t c = 0; c < columns; c += PANEL) {
                const int64_t V = columns - c < PANEL ? columns - c : PANEL;
                const int64_t real_ones = j >= H || width < c ? 0 : width - c < V ? width - c : V;
                real* out = to + c * depth + (b * J + j) * V;
                memcpy(out, row + c, real_ones * sizeof(real));
                memset(out + real_ones, 0, (V - real_ones) * sizeof(real));
            }
        }
}

// ---- one call -------------------------------------------------------------------------------------------------

struct Worker {
    real *x, *P, *h, *c;                // a chunk's input and pre-activations, a slice's state
    real *h_before, *c_before;          // backward: a chunk's states before each step
    real* scratch;                      // GROUP padded rows
    const real** before_rows;
    real *grad_u, *grad_bias, *grad_w;  // (blocks, padded), (blocks, padded), brc: (2, padded)
    real *grad_ih, *grad_hh;            // (in_blocks * H, ldx), (recurrent * H, ldh)
    real* grad_initial;                 // (2, padded)
    int64_t first, last;                // its range of the batch
};

struct Job {
    const Call* call;
    Sizes z;
    Weights w;
    real *back_input, *back_recurrent;  // W_ih, W_hh packed for the way back
    real *initial, *zeros;              // h | c (2, padded) that a reset restores; a row of zeros
    int64_t* offsets;                   // packed sequences: first row of each step
    int64_t rows;                       // that a chunk holds
    int64_t slice_rows;
    int workers;
    Worker* worker;
};

INLINE int64_t step_offset(const Job* job, int64_t t) { return job->offsets ? job->offsets[t] : t * job->z.B; }
INLINE int64_t active(const Job* job, int64_t t, int64_t first, int64_t last) {
    int64_t n = job->call->batch_sizes ? job->call->batch_sizes[t] : last;
    n = (n < last ? n : last) - first;
    return n > 0 ? n : 0;
}
INLINE int64_t saved_stride(const Sizes* z, bool recompute) {
    const int64_t kept = z->kind == KIND_NBRC ? 3 : z->kind == KIND_GRU ? 4 : z->kind == KIND_LSTM ? 5 : 0;
    return (recompute ? z->kind == KIND_LSTM : kept) * z->padded;
}

// Lays a call out in memory: once to measure, once for good.
FUNCTION void lay_out(Carver* c, Job* job, bool backward) {
    const Sizes* z = &job->z;
    const Call* call = job->call;
    const int64_t J = z->padded, row = sizeof(real);
    const bool brc = z->kind == KIND_BRC, lstm = z->kind == KIND_LSTM;
    if (!call->packed && (!backward || brc || call->recompute)) take_weights(c, z, &job->w);
    job->initial = (real*)take(c, 2 * J * row);
    job->zeros = (real*)take(c, J * row);
    job->offsets = call->batch_sizes ? (int64_t*)take(c, (z->T + 1) * sizeof(int64_t)) : 0;
    job->worker = (Worker*)take(c, job->workers * sizeof(Worker));
    if (backward && call->grad_x && !(brc && z->thin))
        job->back_input = (real*)take(c, z->in_blocks * J * z->x_padded * row);
    if (backward && !brc) job->back_recurrent = (real*)take(c, z->recurrent * J * J * row);
    for (int i = 0; i < job->workers; ++i) {
        Worker unused;
        Worker* w = c->base ? job->worker + i : &unused;
        memset(w, 0, sizeof(Worker));
        w->x = (real*)take(c, job->rows * z->ldx * row);
        if (!(brc && z->thin)) w->P = (real*)take(c, job->rows * z->ldp * row);
        w->h = (real*)take(c, job->slice_rows * z->ldh * row);
        if (lstm) w->c = (real*)take(c, job->slice_rows * z->ldh * row);
        w->scratch = (real*)take(c, GROUP * J * row);
        if (!backward) continue;
        w->h_before = (real*)take(c, (brc ? job->slice_rows : job->rows) * z->ldh * row);
        if (lstm) w->c_before = (real*)take(c, job->rows * z->ldh * row);
        if (brc) w->before_rows = (const real**)take(c, job->slice_rows * sizeof(real*));
        w->grad_bias = (real*)take(c, z->blocks * J * row);
        w->grad_initial = (real*)take(c, 2 * J * row);
        if (brc) w->grad_w = (real*)take(c, 2 * J * row);
        if (z->thin)
            w->grad_u = (real*)take(c, z->blocks * J * row);
        else
            w->grad_ih = (real*)take(c, z->in_blocks * z->H * z->ldx * row);
        if (!brc) w->grad_hh = (real*)take(c, z->recurrent * z->H * z->ldh * row);
    }
}

// Ranges of the batch for the workers, of equal numbers of rows. Packed sequences are sorted, longest first.
FUNCTION void share_out(Job* job) {
    const Sizes* z = &job->z;
    if (!job->call->batch_sizes) {
        for (int i = 0; i < job->workers; ++i)
            job->worker[i].first = z->B * i / job->workers, job->worker[i].last = z->B * (i + 1) / job->workers;
        return;
    }
    const int64_t N = job->offsets[z->T];
    int64_t length = z->T, rows = 0, b = 0;
    for (int i = 0; i < job->workers; ++i) {
        job->worker[i].first = b;
        while (b < z->B && (rows * job->workers < N * (i + 1) || i == job->workers - 1)) {
            while (length > 0 && job->call->batch_sizes[length - 1] <= b) --length;
            rows += length, ++b;
        }
        job->worker[i].last = b;
    }
}

// Everything both directions begin with. False if there is no memory.
FUNCTION bool prepare(Job* job, const Call* call, bool backward) {
    memset(job, 0, sizeof(Job));
    job->call = call;
    find_sizes(&job->z, (int)call->kind, call->T, call->B, call->I, call->H);
    const Sizes* z = &job->z;
    const int64_t N = call->N;
    // A second thread takes 10 to 50 µs to wake where it slept: below 50 µs of work one is faster, and steadier.
    const double work = 2. * (double)N * z->H * (z->in_blocks * (double)z->I + z->recurrent * (double)z->H + 40);
    int64_t workers = call->threads < z->B ? call->threads : z->B;
    if (work < 1e7) workers = 1;
    job->workers = workers < 1 ? 1 : (int)workers;
    const int64_t share = (z->B + job->workers - 1) / job->workers;
    // Packed shares are of unequal height: the tail of short sequences may be most of the batch.
    const int64_t height = call->batch_sizes ? z->B : share;
    job->slice_rows = height < 1 ? 1 : height < SLICE_ROWS ? height : SLICE_ROWS;
    int64_t rows = CHUNK_BYTES / (z->ldp * (int64_t)sizeof(real));
    if (rows > N) rows = N;
    job->rows = rows < job->slice_rows ? job->slice_rows : rows;

    Carver measure = {0, 0};
    lay_out(&measure, job, backward);
    Carver carver = {workspace(measure.used), 0};
    if (!carver.base) return false;
    lay_out(&carver, job, backward);

    memset(job->zeros, 0, z->padded * sizeof(real));
    for (int i = 0; i < 2; ++i)
        if (call->initial && (i == 0 || z->kind == KIND_LSTM))
            copy_in(job->initial + i * z->padded, (const real*)call->initial + i * z->H, z->H, z->padded);
        else
            memset(job->initial + i * z->padded, 0, z->padded * sizeof(real));
    if (job->offsets) {
        job->offsets[0] = 0;
        for (int64_t t = 0; t < z->T; ++t) job->offsets[t + 1] = job->offsets[t] + call->batch_sizes[t];
    }
    share_out(job);
    if (call->packed) {
        Carver c = {(char*)call->packed, 0};
        take_weights(&c, z, &job->w);
    } else if (job->w.bias) {
        pack_weights(call, z, &job->w);
    }
    return true;
}

// Copies the input of rows [b, b + n) at step t.
INLINE void gather_x(const Job* job, Worker* w, int64_t row, int64_t t, int64_t b, int64_t n) {
    const Sizes* z = &job->z;
    const real* x = (const real*)job->call->x + (step_offset(job, t) + b) * z->I;
    for (int64_t i = 0; i < n; ++i) memcpy(w->x + (row + i) * z->ldx, x + i * z->I, z->I * sizeof(real));
}

// Pre-activations from the input alone, for `rows` gathered rows.
FUNCTION void project(const Job* job, Worker* w, int64_t rows) {
    const Sizes* z = &job->z;
    const int64_t J = z->padded;
    if (z->thin) {
        for (int64_t r = 0; r < rows; ++r) {
            const real x = w->x[r * z->ldx];
            for (int64_t j = 0; j < z->blocks * J; j += LANES)
                store(w->P + r * z->ldp + j, load(job->w.bias + j) + x * load(job->w.input + j));
        }
        return;
    }
    matmul(w->x, z->ldx, rows, z->I, job->w.input, z->in_blocks * J, w->P + z->in_first * J, z->ldp,
           job->w.bias + z->in_first * J);
    for (int64_t r = 0; r < rows && z->in_first; ++r) memcpy(w->P + r * z->ldp, job->w.bias, J * sizeof(real));
}

INLINE void set_state(real* h, real* c, int64_t ldh, int64_t row, const real* from_h, const real* from_c, int64_t H,
                      int64_t J) {
    copy_in(h + row * ldh, from_h, H, J);
    if (c) copy_in(c + row * ldh, from_c, H, J);
}

FUNCTION void forward_slice(const Job* job, Worker* w, int64_t first, int64_t last) {
    const Sizes* z = &job->z;
    const Call* call = job->call;
    const int64_t J = z->padded, H = z->H, width = z->kind == KIND_LSTM ? 2 * H : H;
    const bool fused = z->kind == KIND_BRC && z->thin;
    const int64_t kept = saved_stride(z, call->recompute != 0);
    real* saved = kept ? (real*)call->saved : 0;
    const real* state = (const real*)call->state;
    for (int64_t i = 0; i < last - first; ++i) {
        const real* row = state + (first + i) * width;
        set_state(w->h, w->c, z->ldh, i, row, row + H, H, J);
    }

    Step s;
    memset(&s, 0, sizeof s);
    s.H = H, s.padded = J, s.ldp = z->ldp, s.ldh = z->ldh, s.h = w->h, s.c = w->c, s.scratch = w->scratch;
    s.gate_stride = s.cell_stride = kept;
    s.u = job->w.input, s.bias = job->w.bias, s.w = job->w.recurrent;
    for (int64_t t = 0, end; t < z->T && active(job, t, first, last); t = end) {
        int64_t rows = 0, n;
        for (end = t; end < z->T && (n = active(job, end, first, last)) && (!rows || rows + n <= job->rows); ++end) {
            if (!fused) gather_x(job, w, rows, end, first, n);
            rows += n;
        }
        if (!fused) project(job, w, rows);
        int64_t row = 0;
        for (int64_t i = t; i < end; ++i, row += n) {
            n = active(job, i, first, last);
            const int64_t place = step_offset(job, i) + first;
            if (call->resets)
                for (int64_t b = 0; b < n; ++b)
                    if (call->resets[place + b])
                        set_state(w->h, w->c, z->ldh, b, job->initial, job->initial + J, H, J);
            s.n = n;
            s.outputs = call->outputs ? (real*)call->outputs + place * H : 0;
            s.P = w->P + row * z->ldp;
            s.gates = saved && !call->recompute ? saved + place * kept : 0;
            if (z->recurrent) matmul(w->h, z->ldh, n, H, job->w.recurrent, z->recurrent * J, s.P, z->ldp, 0);
            if (fused) {
                s.x = (const real*)call->x + place;
                brc_forward_fused(&s);
            } else if (z->kind == KIND_BRC) {
                brc_forward(&s);
            } else if (z->kind == KIND_NBRC) {
                nbrc_forward(&s);
            } else if (z->kind == KIND_GRU) {
                gru_forward(&s);
            } else {
                s.cells = saved ? saved + place * kept + (call->recompute ? 0 : 4 * J) : 0;
                lstm_forward(&s);
            }
        }
    }
    real* last_state = (real*)call->last_state;
    for (int64_t i = 0; i < last - first; ++i) {
        memcpy(last_state + (first + i) * width, w->h + i * z->ldh, H * sizeof(real));
        if (w->c) memcpy(last_state + (first + i) * width + H, w->c + i * z->ldh, H * sizeof(real));
    }
}

FUNCTION void forward_worker(void* context, int index) {
    const Job* job = (const Job*)context;
    Worker* w = job->worker + index;
    for (int64_t b = w->first; b < w->last; b += job->slice_rows)
        forward_slice(job, w, b, b + job->slice_rows < w->last ? b + job->slice_rows : w->last);
}

FUNCTION int forward(const Call* call) {
    Job job;
    if (!prepare(&job, call, false)) return NO_MEMORY;
    const size_t row = call->N * sizeof(real);
    prefer_large_pages(call->outputs, row * job.z.H);
    prefer_large_pages(call->saved, row * saved_stride(&job.z, call->recompute != 0));
    parallel(forward_worker, &job, job.workers, (int)call->threads);
    return OK;
}

// grad_bias += sum of the rows of P, and with I = 1 grad_u += sum of x times them.
FUNCTION void sum_rows(const Job* job, Worker* w, int64_t rows) {
    const Sizes* z = &job->z;
    for (int64_t j = 0; j < z->blocks * z->padded; j += LANES) {
        vec sum = load(w->grad_bias + j), dot = z->thin ? load(w->grad_u + j) : (vec){};
        for (int64_t r = 0; r < rows; ++r) {
            const vec p = load(w->P + r * z->ldp + j);
            sum += p;
            if (z->thin) dot += w->x[r * z->ldx] * p;
        }
        store(w->grad_bias + j, sum);
        if (z->thin) store(w->grad_u + j, dot);
    }
}

INLINE void add_row(real* to, const real* from, int64_t J) {
    for (int64_t j = 0; j < J; j += LANES) store(to + j, load(to + j) + load(from + j));
}

FUNCTION void backward_slice(const Job* job, Worker* w, int64_t first, int64_t last) {
    const Sizes* z = &job->z;
    const Call* call = job->call;
    const int64_t J = z->padded, H = z->H;
    const bool brc = z->kind == KIND_BRC, lstm = z->kind == KIND_LSTM, fused = brc && z->thin;
    const bool recompute = call->recompute != 0;
    const int64_t width = lstm ? 2 * H : H, kept = saved_stride(z, recompute);
    const real *state = (const real*)call->state, *outputs = (const real*)call->outputs;
    const real *grad_last = (const real*)call->grad_last, *grad_outputs = (const real*)call->grad_outputs;
    const real* saved = (const real*)call->saved;
    const real* cells = lstm ? saved + (recompute ? 0 : 4 * J) : 0;
    const int64_t height = last - first;
    for (int64_t i = 0; i < height; ++i) {
        const real* row = grad_last ? grad_last + (first + i) * width : job->zeros;
        set_state(w->h, w->c, z->ldh, i, row, grad_last ? row + H : job->zeros, H, J);
    }

    Step s;
    memset(&s, 0, sizeof s);
    s.H = H, s.padded = J, s.ldp = z->ldp, s.ldh = z->ldh, s.h = w->h, s.c = w->c, s.scratch = w->scratch;
    s.zeros = job->zeros, s.cell_stride = kept, s.gate_stride = recompute ? z->ldp : kept;
    s.u = job->w.input, s.bias = job->w.bias, s.w = job->w.recurrent, s.before_rows = w->before_rows;
    s.grad_u = w->grad_u, s.grad_bias = w->grad_bias, s.grad_w = w->grad_w;

    int64_t end = z->T;
    while (end > 0 && !active(job, end - 1, first, last)) --end;
    for (int64_t t; end > 0; end = t) {
        int64_t rows = 0, n;
        for (t = end; t > 0 && (t == end || rows + active(job, t - 1, first, last) <= job->rows);)
            rows += active(job, --t, first, last);

        // What the steps need: the input, and the state before each (brc takes the states where they are).
        int64_t row = 0;
        for (int64_t i = t; i < end && !fused; ++i, row += n) {
            n = active(job, i, first, last);
            gather_x(job, w, row, i, first, n);
            const int64_t place = step_offset(job, i) + first, before = i ? step_offset(job, i - 1) + first : 0;
            for (int64_t b = 0; b < n && !brc; ++b) {
                const real *h = job->initial, *c = job->initial + J;
                if (call->resets && call->resets[place + b])
                    ;
                else if (i)
                    h = outputs + (before + b) * H, c = lstm ? cells + (before + b) * kept : 0;
                else
                    h = state + (first + b) * width, c = h + H;
                copy_in(w->h_before + (row + b) * z->ldh, h, H, J);
                if (lstm) copy_in(w->c_before + (row + b) * z->ldh, c, H, J);
            }
        }
        if (brc ? !fused : recompute) project(job, w, rows);
        if (!brc && recompute) {
            matmul(w->h_before, z->ldh, rows, H, job->w.recurrent, z->recurrent * J, w->P, z->ldp, 0);
            activate(z->kind, w->P, z->ldp, w->h_before, z->ldh, rows, J);
        }

        row = rows;
        for (int64_t i = end - 1; i >= t; --i) {
            n = active(job, i, first, last);
            row -= n;
            const int64_t place = step_offset(job, i) + first;
            s.n = n;
            s.P = w->P + row * z->ldp;
            s.grad_outputs = grad_outputs ? grad_outputs + place * H : 0;
            if (brc) {
                const int64_t before = i ? step_offset(job, i - 1) + first : 0;
                for (int64_t b = 0; b < n; ++b) {
                    const real* h = i ? outputs + (before + b) * H : state + (first + b) * H;
                    if (call->resets && call->resets[place + b]) h = job->initial;
                    if (H != J) copy_in(w->h_before + b * z->ldh, h, H, J), h = w->h_before + b * z->ldh;
                    w->before_rows[b] = h;
                }
                s.x = (const real*)call->x + place;
                s.grad_x = fused && call->grad_x ? (real*)call->grad_x + place : 0;
                if (fused)
                    brc_backward_fused(&s);
                else
                    brc_backward(&s);
            } else {
                s.gates = recompute ? s.P : (real*)saved + place * kept;
                s.cells = lstm ? (real*)cells + place * kept : 0;
                s.h_before = w->h_before + row * z->ldh;
                s.c_before = lstm ? w->c_before + row * z->ldh : 0;
                if (z->kind == KIND_NBRC)
                    nbrc_backward(&s);
                else if (z->kind == KIND_GRU)
                    gru_backward(&s);
                else
                    lstm_backward(&s);
                matmul(s.P, z->ldp, n, z->recurrent * J, job->back_recurrent, J, w->h, z->ldh, 0);
            }
            for (int64_t b = 0; b < n && call->resets; ++b)
                if (call->resets[place + b]) {
                    add_row(w->grad_initial, w->h + b * z->ldh, J);
                    memset(w->h + b * z->ldh, 0, J * sizeof(real));
                    if (!lstm) continue;
                    add_row(w->grad_initial + J, w->c + b * z->ldh, J);
                    memset(w->c + b * z->ldh, 0, J * sizeof(real));
                }
        }
        if (fused) continue;

        // The gradients of the parameters and of the input, for the whole chunk at once.
        sum_rows(job, w, rows);
        for (int64_t b = 0; b < z->recurrent; ++b)
            matmul_outer(w->P + b * J, z->ldp, H, w->h_before, z->ldh, J, rows, w->grad_hh + b * H * z->ldh, z->ldh);
        for (int64_t b = 0; b < z->in_blocks && !z->thin; ++b)
            matmul_outer(w->P + (z->in_first + b) * J, z->ldp, H, w->x, z->ldx, z->x_padded, rows,
                         w->grad_ih + b * H * z->ldx, z->ldx);
        if (!call->grad_x) continue;
        // x has served: its gradient takes its place.
        for (int64_t r = 0; r < rows; ++r) memset(w->x + r * z->ldx, 0, z->x_padded * sizeof(real));
        matmul(w->P + z->in_first * J, z->ldp, rows, z->in_blocks * J, job->back_input, z->x_padded, w->x, z->ldx, 0);
        row = 0;
        for (int64_t i = t; i < end; ++i, row += n) {
            n = active(job, i, first, last);
            real* out = (real*)call->grad_x + (step_offset(job, i) + first) * z->I;
            for (int64_t b = 0; b < n; ++b)
                memcpy(out + b * z->I, w->x + (row + b) * z->ldx, z->I * sizeof(real));
        }
    }
    real* grad_state = (real*)call->grad_state;
    for (int64_t i = 0; i < height; ++i) {
        memcpy(grad_state + (first + i) * width, w->h + i * z->ldh, H * sizeof(real));
        if (lstm) memcpy(grad_state + (first + i) * width + H, w->c + i * z->ldh, H * sizeof(real));
    }
}

FUNCTION void backward_worker(void* context, int index) {
    const Job* job = (const Job*)context;
    const Sizes* z = &job->z;
    Worker* w = job->worker + index;
    const int64_t J = z->padded, row = sizeof(real);
    memset(w->grad_bias, 0, z->blocks * J * row);
    memset(w->grad_initial, 0, 2 * J * row);
    if (w->grad_w) memset(w->grad_w, 0, 2 * J * row);
    if (w->grad_u) memset(w->grad_u, 0, z->blocks * J * row);
    if (w->grad_ih) memset(w->grad_ih, 0, z->in_blocks * z->H * z->ldx * row);
    if (w->grad_hh) memset(w->grad_hh, 0, z->recurrent * z->H * z->ldh * row);
    // The padding of a row of x is a factor in the gradients: whatever lies there must not be NaN.
    for (int64_t r = 0; r < job->rows && !z->thin; ++r)
        memset(w->x + r * z->ldx + z->I, 0, (z->x_padded - z->I) * row);
    for (int64_t b = w->first; b < w->last; b += job->slice_rows)
        backward_slice(job, w, b, b + job->slice_rows < w->last ? b + job->slice_rows : w->last);
}

FUNCTION int backward(const Call* call) {
    Job job;
    if (!prepare(&job, call, true)) return NO_MEMORY;
    prefer_large_pages(call->grad_x, call->N * call->I * sizeof(real));
    const Sizes* z = &job.z;
    const int64_t J = z->padded, H = z->H;
    int64_t gates[4];
    if (job.back_input) {
        for (int64_t b = 0; b < z->in_blocks; ++b) gates[b] = b;
        pack_back(job.back_input, (const real*)call->weight_ih, H, J, gates, z->in_blocks, z->I, z->x_padded);
    }
    if (job.back_recurrent) {
        for (int64_t b = 0; b < z->recurrent; ++b) gates[b] = recurrent_gate(z, b);
        pack_back(job.back_recurrent, (const real*)call->weight_hh, H, J, gates, z->recurrent, H, J);
    }
    parallel(backward_worker, &job, job.workers, (int)call->threads);

    // Sums over the workers, in their order, without the padding.
    real *g_ih = (real*)call->grad_weight_ih, *g_hh = (real*)call->grad_weight_hh;
    real *gb_ih = (real*)call->grad_bias_ih, *gb_hh = (real*)call->grad_bias_hh;
    real* g_initial = (real*)call->grad_initial;
    for (int i = 0; i < job.workers; ++i) {
        const Worker* w = job.worker + i;
#define ADD(TO, FROM, COUNT)                                                     \
    do {                                                                         \
        real* to_ = (TO);                                                        \
        const real* from_ = (FROM);                                              \
        for (int64_t k_ = 0; k_ < (COUNT); ++k_) to_[k_] = i ? to_[k_] + from_[k_] : from_[k_]; \
    } while (0)
        for (int64_t g = 0; g < z->in_blocks; ++g) {
            const int64_t b = z->in_first + g;
            if (z->thin)
                ADD(g_ih + g * H, w->grad_u + b * J, H);
            else
                for (int64_t j = g * H; j < (g + 1) * H; ++j) ADD(g_ih + j * z->I, w->grad_ih + j * z->ldx, z->I);
            if (gb_ih && g * H < call->bias_ih_size) ADD(gb_ih + g * H, w->grad_bias + b * J, H);
        }
        for (int64_t b = 0; b < z->recurrent; ++b) {
            const int64_t g = recurrent_gate(z, b);
            for (int64_t j = 0; j < H; ++j)
                ADD(g_hh + (g * H + j) * H, w->grad_hh + (b * H + j) * z->ldh, H);
            if (gb_hh) ADD(gb_hh + g * H, w->grad_bias + b * J, H);
        }
        for (int64_t b = 0; b < 2 && w->grad_w; ++b) ADD(g_hh + b * H, w->grad_w + b * J, H);
        for (int64_t b = 0; b < (z->kind == KIND_LSTM ? 2 : 1) && g_initial; ++b)
            ADD(g_initial + b * H, w->grad_initial + b * J, H);
#undef ADD
    }
    return OK;
}

// ---- one step, with the weights packed beforehand -------------------------------------------------------------

FUNCTION size_t packed_bytes(const Call* call) {
    Sizes z;
    Weights w;
    Carver c = {0, 0};
    find_sizes(&z, (int)call->kind, 1, 1, call->I, call->H);
    take_weights(&c, &z, &w);
    return c.used;
}

FUNCTION void pack(const Call* call, void* to) {
    Sizes z;
    Weights w;
    Carver c = {(char*)to, 0};
    find_sizes(&z, (int)call->kind, 1, 1, call->I, call->H);
    take_weights(&c, &z, &w);
    pack_weights(call, &z, &w);
}
