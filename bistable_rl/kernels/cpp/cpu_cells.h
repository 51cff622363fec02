// The equations of one step, elementwise, for n rows of a batch: forward, and backward through them. A row of P holds
// the blocks of a cell side by side, each `padded` wide: first the pre-activations, then the values that replace them.
//   brc, nbrc   a, c, candidate      gru   q = W_n h + b, r, z, n      lstm   i, f, g, o
// (q first, so that the blocks which W_hh feeds are contiguous, and those which W_ih feeds too.)

// c = σ(x), through tanh; 1 - c is .5 - .5 tanh(x / 2), with no cancellation.
INLINE vec sigmoid(vec x) { return .5f * tanh_(.5f * x) + .5f; }

// The place where a row of `n` numbers is written: the target itself if it has the padding, else `scratch`.
INLINE real* target_row(real* place, int64_t row, int64_t H, int64_t padded, real* scratch) {
    return place && H == padded ? place + row * H : scratch;
}
INLINE void finish_row(real* place, int64_t row, int64_t H, int64_t padded, const real* scratch) {
    if (place && H != padded) memcpy(place + row * H, scratch, H * sizeof(real));
}
INLINE const real* source_row(const real* place, int64_t row, int64_t H, int64_t padded, real* scratch,
                              const real* zeros) {
    if (!place) return zeros;
    if (H == padded) return place + row * H;
    copy_in(scratch, place + row * H, H, padded);
    return scratch;
}

struct Step {
    int64_t n, H, padded;
    int64_t ldp, ldh;     // row strides of P and of h, c
    real *P, *h, *c;      // h and c are replaced by the new state (backward: by the gradient of the old one)
    real* outputs;        // (n, H), or null
    real* gates;          // (n, gate_stride): kept for the backward pass, or null
    int64_t gate_stride;
    real* cells;          // LSTM: c of this step, (n, cell_stride), kept for the backward pass, or null
    int64_t cell_stride;
    real* scratch;        // two padded rows
    // Only in backward: P receives the gradients of the pre-activations.
    const real *h_before, *c_before;  // (n, ldh)
    const real* grad_outputs;         // (n, H), or null
    const real* zeros;                // a padded row
    // Only brc.
    const real *x, *u, *bias, *w;     // I = 1: x (n), u (3, padded), bias (3, padded); w (2, padded)
    const real* const* before_rows;   // backward: n rows of h before the step
    real *grad_u, *grad_bias, *grad_w, *grad_x;
};

// ---- forward --------------------------------------------------------------------------------------------------

// a = 1 + tanh(U_a x + w_a h + b), c = σ(U_c x + w_c h + b), h = c h + (1 - c) tanh(U_h x + a h + b). With `fused`,
// I = 1 and U x + b is computed here, which spares writing and reading P.
INLINE void brc_forward_units(const int fused, const int V, const Step* s, int64_t j, const real* P, real x, real* h,
                              real* out) {
    const int64_t J = s->padded;
    vec t[TANHS], g[PAIR], before[PAIR];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
        const int64_t i = j + v * LANES;
        vec pa, pc;
        if (fused) {
            pa = load(s->bias + i) + x * load(s->u + i);
            pc = load(s->bias + J + i) + x * load(s->u + J + i);
            g[v] = load(s->bias + 2 * J + i) + x * load(s->u + 2 * J + i);
        } else {
            pa = load(P + i), pc = load(P + J + i), g[v] = load(P + 2 * J + i);
        }
        before[v] = load(h + i);
        t[v] = pa + load(s->w + i) * before[v];
        t[V + v] = .5f * (pc + load(s->w + J + i) * before[v]);
    }
    tanh_all(t, 2 * V);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) g[v] += (1 + t[v]) * before[v];
    tanh_all(g, V);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
        const vec k = .5f * t[V + v], after = (.5f + k) * before[v] + (.5f - k) * g[v];
        store(h + j + v * LANES, after);
        store(out + j + v * LANES, after);
    }
}
INLINE void brc_forward_body(const int fused, const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        const real* P = s->P + b * s->ldp;
        real* h = s->h + b * s->ldh;
        real* out = target_row(s->outputs, b, s->H, J, s->scratch);
        const real x = fused ? s->x[b] : 0;
        int64_t j = 0;
        for (; j + PAIR * LANES <= J; j += PAIR * LANES) brc_forward_units(fused, PAIR, s, j, P, x, h, out);
        for (; j < J; j += LANES) brc_forward_units(fused, 1, s, j, P, x, h, out);
        finish_row(s->outputs, b, s->H, J, s->scratch);
    }
}
FUNCTION void brc_forward(const Step* s) { brc_forward_body(0, s); }
FUNCTION void brc_forward_fused(const Step* s) { brc_forward_body(1, s); }

FUNCTION void nbrc_forward(const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        const real* P = s->P + b * s->ldp;
        real* h = s->h + b * s->ldh;
        real* out = target_row(s->outputs, b, s->H, J, s->scratch);
        real* gates = s->gates ? s->gates + b * s->gate_stride : 0;
        for (int64_t j = 0; j < J; j += LANES) {
            const vec before = load(h + j);
            const vec a = 1 + tanh_(load(P + j));
            const vec k = .5f * tanh_(.5f * load(P + J + j));
            const vec g = tanh_(load(P + 2 * J + j) + a * before);
            const vec after = (.5f + k) * before + (.5f - k) * g;
            if (gates) store(gates + j, a), store(gates + J + j, .5f + k), store(gates + 2 * J + j, g);
            store(h + j, after);
            store(out + j, after);
        }
        finish_row(s->outputs, b, s->H, J, s->scratch);
    }
}

FUNCTION void gru_forward(const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        const real* P = s->P + b * s->ldp;
        real* h = s->h + b * s->ldh;
        real* out = target_row(s->outputs, b, s->H, J, s->scratch);
        real* gates = s->gates ? s->gates + b * s->gate_stride : 0;
        for (int64_t j = 0; j < J; j += LANES) {
            const vec q = load(P + j);
            const vec r = sigmoid(load(P + J + j));
            const vec k = .5f * tanh_(.5f * load(P + 2 * J + j));
            const vec n = tanh_(load(P + 3 * J + j) + r * q);
            const vec after = (.5f + k) * load(h + j) + (.5f - k) * n;
            if (gates) {
                store(gates + j, q), store(gates + J + j, r);
                store(gates + 2 * J + j, .5f + k), store(gates + 3 * J + j, n);
            }
            store(h + j, after);
            store(out + j, after);
        }
        finish_row(s->outputs, b, s->H, J, s->scratch);
    }
}

FUNCTION void lstm_forward(const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        const real* P = s->P + b * s->ldp;
        real *h = s->h + b * s->ldh, *c = s->c + b * s->ldh;
        real* out = target_row(s->outputs, b, s->H, J, s->scratch);
        real* gates = s->gates ? s->gates + b * s->gate_stride : 0;
        real* cells = s->cells ? s->cells + b * s->cell_stride : 0;
        for (int64_t j = 0; j < J; j += LANES) {
            const vec i = sigmoid(load(P + j));
            const vec f = sigmoid(load(P + J + j));
            const vec g = tanh_(load(P + 2 * J + j));
            const vec o = sigmoid(load(P + 3 * J + j));
            const vec cell = f * load(c + j) + i * g;
            const vec after = o * tanh_(cell);
            if (gates) {
                store(gates + j, i), store(gates + J + j, f);
                store(gates + 2 * J + j, g), store(gates + 3 * J + j, o);
            }
            if (cells) store(cells + j, cell);
            store(c + j, cell);
            store(h + j, after);
            store(out + j, after);
        }
        finish_row(s->outputs, b, s->H, J, s->scratch);
    }
}

// Pre-activations to gates, in place, for a backward pass for which the gates were not saved.
FUNCTION void activate(int kind, real* P, int64_t ldp, const real* h_before, int64_t ldh, int64_t rows, int64_t J) {
    for (int64_t b = 0; b < rows; ++b, P += ldp, h_before += ldh)
        for (int64_t j = 0; j < J; j += LANES) {
            real *p0 = P + j, *p1 = P + J + j, *p2 = P + 2 * J + j, *p3 = P + 3 * J + j;
            if (kind == KIND_NBRC) {
                const vec a = 1 + tanh_(load(p0));
                store(p0, a), store(p1, sigmoid(load(p1))), store(p2, tanh_(load(p2) + a * load(h_before + j)));
            } else if (kind == KIND_GRU) {
                const vec r = sigmoid(load(p1));
                store(p1, r), store(p2, sigmoid(load(p2))), store(p3, tanh_(load(p3) + r * load(p0)));
            } else {
                store(p0, sigmoid(load(p0))), store(p1, sigmoid(load(p1)));
                store(p2, tanh_(load(p2))), store(p3, sigmoid(load(p3)));
            }
        }
}

// ---- backward -------------------------------------------------------------------------------------------------
// h (and c) hold the gradient of the state after the step, without the part from the outputs; they end up with that of
// the state before it, without the part through W_hh.

FUNCTION void nbrc_backward(const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        real *P = s->P + b * s->ldp, *grad = s->h + b * s->ldh;
        const real *gates = s->gates + b * s->gate_stride, *before = s->h_before + b * s->ldh;
        const real* out = source_row(s->grad_outputs, b, s->H, J, s->scratch, s->zeros);
        for (int64_t j = 0; j < J; j += LANES) {
            const vec a = load(gates + j), c = load(gates + J + j), g = load(gates + 2 * J + j);
            const vec h = load(before + j), d = load(grad + j) + load(out + j);
            const vec dg = d * (1 - c) * (1 - g * g);
            store(P + j, dg * h * (a * (2 - a)));  // 1 - (a - 1)² = a (2 - a)
            store(P + J + j, d * (h - g) * (c * (1 - c)));
            store(P + 2 * J + j, dg);
            store(grad + j, d * c + dg * a);
        }
    }
}

FUNCTION void gru_backward(const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        real *P = s->P + b * s->ldp, *grad = s->h + b * s->ldh;
        const real *gates = s->gates + b * s->gate_stride, *before = s->h_before + b * s->ldh;
        const real* out = source_row(s->grad_outputs, b, s->H, J, s->scratch, s->zeros);
        for (int64_t j = 0; j < J; j += LANES) {
            const vec q = load(gates + j), r = load(gates + J + j);
            const vec z = load(gates + 2 * J + j), n = load(gates + 3 * J + j);
            const vec h = load(before + j), d = load(grad + j) + load(out + j);
            const vec dn = d * (1 - z) * (1 - n * n);
            store(P + j, dn * r);
            store(P + J + j, dn * q * (r * (1 - r)));
            store(P + 2 * J + j, d * (h - n) * (z * (1 - z)));
            store(P + 3 * J + j, dn);
            store(grad + j, d * z);
        }
    }
}

FUNCTION void lstm_backward(const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b = 0; b < s->n; ++b) {
        real *P = s->P + b * s->ldp, *grad = s->h + b * s->ldh, *grad_cell = s->c + b * s->ldh;
        const real *gates = s->gates + b * s->gate_stride, *cells = s->cells + b * s->cell_stride;
        const real* before = s->c_before + b * s->ldh;
        const real* out = source_row(s->grad_outputs, b, s->H, J, s->scratch, s->zeros);
        for (int64_t j = 0; j < J; j += LANES) {
            const vec i = load(gates + j), f = load(gates + J + j);
            const vec g = load(gates + 2 * J + j), o = load(gates + 3 * J + j);
            const vec t = tanh_(load(cells + j)), d = load(grad + j) + load(out + j);
            const vec dc = load(grad_cell + j) + d * o * (1 - t * t);
            store(P + j, dc * g * (i * (1 - i)));
            store(P + J + j, dc * load(before + j) * (f * (1 - f)));
            store(P + 2 * J + j, dc * i * (1 - g * g));
            store(P + 3 * J + j, d * t * (o * (1 - o)));
            store(grad_cell + j, dc * f);
            store(grad + j, (vec){});
        }
    }
}

// Recomputes the gates from h before the step. Rows are taken eight at a time, with units in the outermost loop, so
// that the gradients of the parameters are loaded and stored once for eight rows; and two at a time for tanh_all.
static const int64_t GROUP = 8;
struct BrcSums {
    vec ua, uc, uh, ba, bc, bh, wa, wc;
};
INLINE void brc_backward_rows(const int fused, const int need_x, const int V, const Step* s, int64_t j, int64_t b,
                              const real* const* before, const real* const* out, const BrcSums* parameters,
                              BrcSums* sums, vec* dx) {
    const int64_t J = s->padded;
    const BrcSums w = *parameters;
    vec t[TANHS], g[PAIR], h[PAIR];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
        const real* P = s->P + (b + v) * s->ldp + j;
        const real x = fused ? s->x[b + v] : 0;
        vec pa, pc;
        if (fused)
            pa = w.ba + x * w.ua, pc = w.bc + x * w.uc, g[v] = w.bh + x * w.uh;
        else
            pa = load(P), pc = load(P + J), g[v] = load(P + 2 * J);
        h[v] = load(before[v] + j);
        t[v] = pa + w.wa * h[v];
        t[V + v] = .5f * (pc + w.wc * h[v]);
    }
    tanh_all(t, 2 * V);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) g[v] += (1 + t[v]) * h[v];
    tanh_all(g, V);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
        real *P = s->P + (b + v) * s->ldp + j, *grad = s->h + (b + v) * s->ldh + j;
        const real x = fused ? s->x[b + v] : 0;
        const vec d = load(grad) + load(out[v] + j), k = .5f * t[V + v];
        const vec dg = d * (.5f - k) * (1 - g[v] * g[v]);
        const vec da = dg * h[v] * (1 - t[v] * t[v]);
        const vec dc = d * (h[v] - g[v]) * (.25f - k * k);  // c (1 - c)
        sums->wa += da * h[v], sums->wc += dc * h[v];
        store(grad, d * (.5f + k) + dg * (1 + t[v]) + da * w.wa + dc * w.wc);
        if (fused) {
            sums->ua += x * da, sums->uc += x * dc, sums->uh += x * dg;
            sums->ba += da, sums->bc += dc, sums->bh += dg;
            if (need_x) dx[v] += da * w.ua + dc * w.uc + dg * w.uh;
        } else {
            store(P, da), store(P + J, dc), store(P + 2 * J, dg);
        }
    }
}
INLINE void brc_backward_body(const int fused, const int need_x, const Step* s) {
    const int64_t J = s->padded;
    for (int64_t b0 = 0; b0 < s->n; b0 += GROUP) {
        const int rows = (int)(s->n - b0 < GROUP ? s->n - b0 : GROUP);
        const real *before[GROUP], *out[GROUP];
        vec dx[GROUP];
        for (int r = 0; r < rows; ++r) {
            before[r] = s->before_rows[b0 + r];
            out[r] = source_row(s->grad_outputs, b0 + r, s->H, J, s->scratch + r * J, s->zeros);
            dx[r] = (vec){};
        }
        for (int64_t j = 0; j < J; j += LANES) {
            BrcSums w = {}, sums = {};
            w.wa = load(s->w + j), w.wc = load(s->w + J + j);
            if (fused) {
                w.ua = load(s->u + j), w.uc = load(s->u + J + j), w.uh = load(s->u + 2 * J + j);
                w.ba = load(s->bias + j), w.bc = load(s->bias + J + j), w.bh = load(s->bias + 2 * J + j);
            }
            int r = 0;
            for (; r + PAIR <= rows; r += PAIR)
                brc_backward_rows(fused, need_x, PAIR, s, j, b0 + r, before + r, out + r, &w, &sums, dx + r);
            for (; r < rows; ++r)
                brc_backward_rows(fused, need_x, 1, s, j, b0 + r, before + r, out + r, &w, &sums, dx + r);
            store(s->grad_w + j, load(s->grad_w + j) + sums.wa);
            store(s->grad_w + J + j, load(s->grad_w + J + j) + sums.wc);
            if (fused) {
                real *gu = s->grad_u + j, *gb = s->grad_bias + j;
                store(gu, load(gu) + sums.ua), store(gu + J, load(gu + J) + sums.uc);
                store(gu + 2 * J, load(gu + 2 * J) + sums.uh);
                store(gb, load(gb) + sums.ba), store(gb + J, load(gb + J) + sums.bc);
                store(gb + 2 * J, load(gb + 2 * J) + sums.bh);
            }
        }
        if (fused && need_x)
            for (int r = 0; r < rows; ++r) s->grad_x[b0 + r] = sum_lanes(dx[r]);
    }
}
FUNCTION void brc_backward(const Step* s) { brc_backward_body(0, 0, s); }
FUNCTION void brc_backward_fused(const Step* s) {
    if (s->grad_x)
        brc_backward_body(1, 1, s);
    else
        brc_backward_body(1, 0, s);
}
