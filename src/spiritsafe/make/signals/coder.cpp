// Entropy coding of signal rows: an adaptive model over integers only, so that bytes decode alike on every machine,
// and two rANS coders by turns (arXiv 1311.2540), so that one need not wait for the other. plain.py holds the same
// model in plain Python; change both together.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace {
using u8 = uint8_t; using i16 = int16_t; using u16 = uint16_t; using u32 = uint32_t; using u64 = uint64_t;
constexpr int LIST = 96, LISTS = 3, ENTRIES = 256, CANDIDATES = LISTS * LIST + 1, SAMPLE = 255, LAST = 254;
constexpr int USES = 250, WIDE = 226;
constexpr u64 LOW = u64(1) << 32;
constexpr i16 COUNT[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                           16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

i16 RATE[256];
u8 KIND[256];
// Whole numbers as one of 32 symbols and some bits more: the least number of a symbol, its bits, the symbol of each.
struct Classes { int least[32] = {}; u8 bits[32] = {}, of[512] = {}; } DOWN, AROUND;
const bool ready = [] {
    const u8 down[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6};
    const u8 around[15] = {0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 8};
    for (int n = 0; n < 256; n++) {
        RATE[n] = i16(65536 / (n + 5));
        KIND[n] = u8(1 + 2 * std::min(3, (__builtin_popcount(n) + 1) / 2) + (n & 1));
    }
    for (int s = 0, at = 0; s < 32; at += 1 << down[s++]) {
        DOWN.least[s] = at, DOWN.bits[s] = down[s];
        for (int i = at; i < at + (1 << down[s]) && i < 256; i++) DOWN.of[i] = u8(s);
    }
    AROUND.of[256] = 15;
    for (int m = 0, at = 1; m < 15; at += 1 << around[m++]) {
        AROUND.least[16 + m] = at, AROUND.least[14 - m] = 1 - at - (1 << around[m]);
        AROUND.bits[16 + m] = AROUND.bits[14 - m] = around[m];
        for (int i = at; i < at + (1 << around[m]) && i < 256; i++)
            AROUND.of[256 + i] = u8(16 + m), AROUND.of[256 - i] = u8(14 - m);
    }
    return true;
}();

// The probability of 1 in 1/65536: the mean of what was seen lately and for longer, each at least 31.
struct Cell {
    u32 both = 0x80008000;
    u32 p() const { return ((both >> 16) + (both & 0xFFFF)) >> 1; }
    void learn(int bit) {
        const int goal = bit ? 65535 : 31, slow = int(both >> 16), fast = int(both & 0xFFFF);
        both = u32(slow + ((goal - slow) >> 7)) << 16 | u32(fast + ((goal - fast) >> 4));
    }
};

// Probabilities of `S` symbols: how much lies below each, in 1/32768 before every symbol is given its least. In place
// of the first, which is 0, how often they were used, less 256.
template <int S> struct alignas(2 * S) Cdf {
    i16 c[S];
    Cdf() { for (int i = 0; i < S; i++) c[i] = i ? i16(i * 32768 / S) : -256; }
    u32 below(int i) const { return i == S ? 32768 : i ? u32(c[i] - (c[i] >> 10) + i) : 0; }
#ifdef __AVX2__
    static __m256i load(const i16* at) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)); }
    // The symbol at `v`; where it starts in the low half of `both`, where it ends in the high one: no branches.
    int find(u32 v, u32& both) const {
        alignas(64) u16 starts[S + 2];
        int over = 0;
        for (int j = 0; j < S; j += 16) {
            const __m256i a = load(c + j), more = _mm256_sub_epi16(load(COUNT + j), _mm256_srai_epi16(a, 10));
            __m256i from = _mm256_add_epi16(a, more);
            if (!j) from = _mm256_insert_epi16(from, 0, 0);
            _mm256_store_si256(reinterpret_cast<__m256i*>(starts + j), from);
            const __m256i is_over = _mm256_cmpgt_epi16(from, _mm256_set1_epi16(i16(v)));
            over += __builtin_popcount(u32(_mm256_movemask_epi8(is_over)));
        }
        starts[S] = 32768;
        const int s = S - 1 - over / 2;
        std::memcpy(&both, starts + s, 4);
        return s;
    }
    void learn(int s) {
        const int n = c[0];
        const __m256i rate = _mm256_set1_epi16(RATE[n + 256]), t = _mm256_set1_epi16(i16(s));
        for (int j = 0; j < S; j += 16) {
            const __m256i a = load(c + j), goal = _mm256_srli_epi16(_mm256_cmpgt_epi16(load(COUNT + j), t), 1);
            __m256i next = _mm256_add_epi16(a, _mm256_mulhi_epi16(_mm256_sub_epi16(goal, a), rate));
            if (!j) next = _mm256_insert_epi16(next, i16(n + (n + 256 < USES)), 0);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + j), next);
        }
    }
#else
    int find(u32 v, u32& both) const {
        int s = 0;
        while (s + 1 < S && below(s + 1) <= v) s++;
        both = below(s + 1) << 16 | below(s);
        return s;
    }
    void learn(int s) {
        const int n = c[0];
        for (int i = 1; i < S; i++) c[i] = i16(c[i] + (((i > s ? 32767 : 0) - c[i]) * RATE[n + 256] >> 16));
        c[0] = i16(n + (n + 256 < USES));
    }
#endif
};

struct Encoder {
    std::vector<u32> steps;
    std::vector<u8> out;
    void step(u32 start, u32 size) { steps.push_back(start << 16 | size); }
    int bit(Cell& c, int bit) {
        const u32 p = c.p();
        step(bit ? 0 : p, bit ? p : 65536 - p);
        c.learn(bit);
        return bit;
    }
    template <int S> int symbol(Cdf<S>& c, int s) {
        step(2 * c.below(s), 2 * (c.below(s + 1) - c.below(s)));
        c.learn(s);
        return s;
    }
    int raw(int bits, int value) {
        if (bits) step(u32(value) << (16 - bits), 65536u >> bits);
        return value;
    }
    // The last step first: what is written last is read first.
    void finish() {
        std::vector<u32> words;
        u64 x = LOW, y = LOW;
        for (size_t i = steps.size(); i--;) {
            std::swap(x, y);
            const u32 size = steps[i] & 0xFFFF;
            if (x >> 48 >= size) { words.push_back(u32(x)); x >>= 32; }
            x = (x / size << 16) + x % size + (steps[i] >> 16);
        }
        for (u64 z : {y, x}) { words.push_back(u32(z)); words.push_back(u32(z >> 32)); }
        for (size_t i = words.size(); i--;) for (int j = 24; j >= 0; j -= 8) out.push_back(u8(words[i] >> j));
    }
};

struct Decoder {
    const u8* in; int64_t size, at = 0; u64 x = 0, y = 0;
    Decoder(const u8* in, int64_t size) : in(in), size(size) { for (u64* z : {&x, &x, &y, &y}) *z = *z << 32 | word(); }
    u32 word() {
        u32 found = 0;
        if (at + 4 <= size) for (int i = 0; i < 4; i++) found = found << 8 | in[at + i];
        at += 4;
        return found;
    }
    void step(u32 start, u32 size) {
        u64 z = (x >> 16) * size + (x & 0xFFFF) - start;
        if (__builtin_expect(z < LOW, 0)) z = z << 32 | word();
        x = y, y = z;
    }
    int bit(Cell& c, int) {
        const u32 p = c.p();
        const int bit = u32(x & 0xFFFF) < p;
        const u32 zero = u32(bit) - 1;  // all ones for a 0: no branch that would be guessed wrong
        step(p & zero, (p ^ zero) + (zero & 65537));
        c.learn(bit);
        return bit;
    }
    template <int S> int symbol(Cdf<S>& c, int) {
        u32 both;
        const int s = c.find(u32(x & 0xFFFF) >> 1, both);
        const u32 start = both & 0xFFFF;
        step(2 * start, 2 * ((both >> 16) - start));
        c.learn(s);
        return s;
    }
    int raw(int bits, int) {
        const u32 v = u32(x & 0xFFFF) >> (16 - bits);
        if (bits) step(v << (16 - bits), 65536u >> bits);
        return int(v);
    }
    bool ended() const { return at == size && x == LOW && y == LOW; }
};

// Tokens of earlier rows of one kind: their last level, and in which of the last eight rows they were.
struct List { u32 id[LIST]; u8 level[LIST], past[LIST]; int num = 0, hand = 0; };
struct Entry { u32 id; u8 level, in; u16 candidate; };
struct Sum { int num = 0, den = 0; };

struct Model {
    int vocab, blocks = 1, num = 0, tail = 0, some = 0, last = 0, known = 0, mean = 0, size = 0;
    bool broken = false;
    u32 context;
    Sum before, sum;
    std::vector<Cell> flags, bits;
    std::vector<Cdf<16>> bytes, nodes, groups;
    std::vector<Cdf<32>> news, olds;
    std::vector<List> lists;
    std::vector<u32> by_token, by_top, by_row;
    std::vector<u16> where;
    // Candidates: the token, how each list had it, its last level, which lists it is in.
    u32 ids[CANDIDATES] = {};
    u16 contexts[CANDIDATES];
    u8 level_of[CANDIDATES], in[CANDIDATES];
    Entry found[ENTRIES];
    u16 hits[CANDIDATES], wanted[CANDIDATES] = {};  // one more than the level, 0 for none
    u8 slot[LISTS][CANDIDATES] = {};

    explicit Model(int vocab) : vocab(vocab), context(u32(vocab)) {
        while (int64_t(1) << 4 * blocks < vocab) blocks++;
        flags.resize(4096); bits.resize(8); bytes.resize(6 * 32 * 17); news.resize(16 * 8); olds.resize(44 * 8 * 3);
        nodes.resize(first(blocks)); groups.resize(size_t(16 + blocks) * 32 * 17);
        lists.resize(1); lists.reserve(1 << 14);
        by_token.assign(size_t(vocab) + 1, 0); by_top.assign(vocab, 0); by_row.assign(1, 0);
        where.assign(vocab, 0);
    }

    template <class IO> int byte(IO& io, int kind, int context, int value) {
        Cdf<16>* c = &bytes[(kind * 32 + context) * 17];
        const int high = io.symbol(c[16], value >> 4);
        return high << 4 | io.symbol(c[high], value & 15);
    }
    // The tree of ids, by four bits at a time: where its nodes of a depth begin, and the one that an id goes through.
    static size_t first(int depth) { return ((size_t(1) << 4 * depth) - 1) / 15; }
    Cdf<16>& node(u32 id, int depth) { return nodes[first(depth) + (u64(id) >> 4 * (blocks - depth))]; }
    template <class IO> u32 one(IO& io, u32 id) {
        u32 found = 0;
        for (int d = 0, up = 4 * blocks - 4; d < blocks; d++, up -= 4)
            found |= u32(io.symbol(node(found, d), id >> up & 15)) << up;
        broken |= found >= u32(vocab);
        return found < u32(vocab) ? found : 0;
    }
    // Rising ids, depth by depth. One that is alone in its node is told by that; of several, each by how many are to
    // come in the node and by the one before. False where they do not rise, or are candidates.
    template <class IO> bool rising(IO& io, Entry* e, int num) {
        u32 id[ENTRIES];
        for (int k = 0; k < num; k++) { id[k] = e[k].id; e[k].id = 0; }
        for (int d = 0, up = 4 * blocks - 4; d < blocks; d++, up -= 4)
            for (int k = 0, start = 0, end = 0; k < num; k++) {
                if (k == end) for (start = end++; end < num && e[end].id == e[k].id; end++);
                Cdf<16>& own = node(e[k].id, d);
                int s = id[k] >> up & 15;
                if (end - start == 1) s = io.symbol(own, s);
                else {
                    const u32 kind = d == 1 ? e[k].id >> 4 * (blocks - 1) : 16 + d;
                    const u32 past = k > start ? e[k - 1].id >> up & 15 : 16;
                    s = io.symbol(groups[(kind * 32 + std::min(end - k, d ? 8 : 31)) * 17 + past], s);
                    own.learn(s);
                    if (k > start && s < int(past)) return false;
                }
                e[k].id |= u32(s) << up;
            }
        for (int k = 0; k < num; k++)
            if (e[k].id >= u32(vocab) || there(e[k].id) || (k && e[k].id == e[k - 1].id)) return false;
        return true;
    }
    static int bound(int level, int most) { return std::min(std::max(level, 0), most); }
    template <class IO> int number(IO& io, Cdf<32>& c, const Classes& k, int value, int zero) {
        const int s = io.symbol(c, k.of[value + zero]);
        return k.least[s] + io.raw(k.bits[s], value - k.least[s]);
    }
    template <class IO> int sampled(IO& io, int kind, int level) { return some && io.bit(bits[kind], level == SAMPLE); }
    // A level by how far it is below the row's lowest.
    template <class IO> int new_level(IO& io, int kind, int level) {
        if (sampled(io, kind, level)) return SAMPLE;
        const int down = number(io, news[(last >> 4) * 8 + std::min(mean >> 3, 7)], DOWN, std::max(last - level, 0), 0);
        mean += (16 * down - mean) >> 2;
        return bound(last - down, LAST);
    }
    // A level by its distance from the last one, moved by what the row is off in nats: a level is about 1 / (WIDE -
    // level) of them. What the entry just before was off is left out, for it may still be being decoded.
    template <class IO> int known_level(IO& io, int old, int level) {
        if (old == SAMPLE) return new_level(io, 3, level);
        if (sampled(io, 2, level)) return SAMPLE;
        const int wide = std::max(WIDE - old, 4);
        const int move = before.den ? int(int64_t(wide) * before.num / before.den) : 0, guess = bound(old + move, last);
        const int kind = (guess < 192 ? guess >> 4 : 12 + ((guess - 192) >> 1)) * 8 + std::min(last - guess, 7);
        Cdf<32>& c = olds[kind * 3 + std::min((known + 2) / 3, 2)];
        const int found = bound(guess + number(io, c, AROUND, level - guess, 256), LAST);
        before = sum;
        sum.num += wide * (found - old), sum.den += wide * wide;
        known++;
        return found;
    }

    List& list(std::vector<u32>& lists_of, u32 key) {
        if (!lists_of[key]) { lists_of[key] = u32(lists.size()); lists.emplace_back(); }
        return lists[lists_of[key]];
    }
    bool there(u32 id) const { return where[id] < size && ids[where[id]] == id; }
    template <int WHICH> void gather(const List& list, int weight) {
        for (int k = 0; k < list.num; k++) {
            const u32 id = list.id[k];
            const int at = where[id];
            const bool seen = WHICH && (at < size) & (ids[at] == id);
            // Masks in place of branches, which would be guessed wrong.
            const int i = size + ((at - size) & -int(seen)), level = list.level[k], old = level_of[i], had = in[i] > 0;
            const int both = WHICH == 1 ? had & (std::max(old, level) < SAMPLE) : 0, keep = WHICH == 2 ? had : 0;
            ids[i] = id;
            contexts[i] = u16(contexts[i] + KIND[list.past[k]] * weight);
            level_of[i] = u8(level + ((((old - level + 1) >> 1) & -both) | ((old - level) & -keep)));
            in[i] = u8(in[i] | 1 << WHICH);
            where[id] = u16(i);
            slot[WHICH][i] = u8(k);
            size += !seen;
        }
    }
    void renew(List& list, int which) {
        u16 fresh[ENTRIES];
        u8 free[LIST + 1];
        int num_fresh = 0, num_free = 0;
        for (int k = 0; k < LIST; k++) list.past[k] = u8(list.past[k] << 1);
        for (int k = 0; k < num; k++) {
            const int in = found[k].in >> which & 1, at = slot[which][found[k].candidate];
            list.past[at] |= u8(in);
            list.level[at] = in ? found[k].level : list.level[at];
            fresh[num_fresh] = u16(k);
            num_fresh += 1 - in;
        }
        for (int k = list.num; k < LIST && num_free < num_fresh; k++) free[num_free++] = u8(k);
        const int hand = list.hand < list.num ? list.hand : 0;
        for (int i = 0; i < list.num && num_free < num_fresh; i++) {
            const int k = hand + i - (hand + i < list.num ? 0 : list.num);
            free[num_free] = u8(k);
            num_free += !(list.past[k] & 3);
        }
        for (int i = 0; i < num_free; i++) {
            const Entry& e = found[fresh[i]];
            const int at = free[i];
            list.id[at] = e.id; list.level[at] = e.level; list.past[at] = 1;
            list.num = std::max(list.num, at + 1);
        }
        if (num_free) list.hand = (free[num_free - 1] + 1) % LIST;
    }

    // One row of `n` (id, level) entries, level 255 for a sample; entries come back in the order they are coded.
    // False where they cannot be a row.
    template <class IO> bool code(IO& io, int& n, int32_t* id, u8* level, u8& tail_, int32_t& token) {
        constexpr bool encoding = std::is_same_v<IO, Encoder>;
        const auto unknown = [&](int32_t i) { return u32(i) >= u32(vocab); };
        if (encoding && (unknown(token) || std::any_of(id, id + n, unknown))) return false;
        for (size_t i = 0; i < sizeof(List); i += 64)
            __builtin_prefetch(reinterpret_cast<const char*>(&lists[by_token[context]]) + i);
        if (!io.bit(bits[0], n == num)) n = byte(io, 0, 0, n); else n = num;
        num = n;
        tail = tail_ = u8(byte(io, 1, tail >> 4, tail_));
        if (n && !entries(io, n, id, level)) return false;
        int place = n;
        if (encoding) for (int k = 0; k < n; k++) if (found[k].id == u32(token)) place = k;
        place = byte(io, 2, n ? found[0].level >> 3 : 0, place);
        token = int32_t(place < n ? found[place].id : one(io, u32(token)));
        for (int k = 0; k < n; k++) { id[k] = int32_t(found[k].id); level[k] = found[k].level; }
        context = u32(token);
        return !broken;
    }
    template <class IO> bool entries(IO& io, int n, const int32_t* id, const u8* level) {
        constexpr bool encoding = std::is_same_v<IO, Encoder>;
        int most = 0, best = 0;
        if (encoding) for (int k = 0; k < n; k++) {
            if (level[k] != SAMPLE) most = std::max<int>(most, level[k]);
            if (level[k] < level[best] || (level[k] == level[best] && id[k] < id[best])) best = k;
        }
        some = io.bit(bits[1], encoding && std::any_of(level, level + n, [](u8 l) { return l == SAMPLE; }));
        last = byte(io, 3, tail >> 3, most);
        size = known = mean = 0;
        before = sum = {};
        std::fill(contexts, contexts + CANDIDATES, 0);
        std::fill(in, in + CANDIDATES, 0);
        list(by_row, 0), list(by_token, context);
        gather<0>(lists[by_token[context]], 81);
        const u32 top = likeliest(io, encoding ? u32(id[best]) : 0);
        list(by_top, top);
        gather<1>(lists[by_top[top]], 9);
        gather<2>(lists[by_row[0]], 1);
        const int at_top = where[top];
        found[0] = {top, u8(byte(io, 4, tail >> 3, encoding ? level[best] : 0)), in[at_top], u16(at_top)};
        if (encoding) {
            std::fill(wanted, wanted + size, 0);
            for (int k = 0; k < n; k++) if (there(u32(id[k]))) wanted[where[id[k]]] = u16(level[k] + 1);
        }
        int got = 1, hit = 0;
        const int kind = tail >> 5 < 2 ? tail >> 5 : tail < 128 ? 2 : 3;
        for (int i = 0; i < size && got + hit < n; i++) {
            if (i == at_top) continue;
            hits[hit] = u16(i);
            hit += io.bit(flags[contexts[i] * 4 + kind], wanted[i] > 0);
        }
        for (int k = 0; k < hit; k++) {
            const u16 i = hits[k];
            found[got++] = {ids[i], u8(known_level(io, level_of[i], wanted[i] - 1)), in[i], i};
        }
        const int old = got;
        if (encoding) {
            for (int k = 0; k < n; k++) if (!there(u32(id[k])) && got < n) found[got++] = {u32(id[k]), level[k], 0, 0};
            if (got < n) return false;
            std::sort(found + old, found + n, [](const Entry& a, const Entry& b) { return a.id < b.id; });
        }
        if (!rising(io, found + old, n - old)) return false;
        for (int k = old; k < n; k++) found[k] = {found[k].id, u8(new_level(io, 4, found[k].level)), 0, 0};
        renew(lists[by_token[context]], 0);
        renew(lists[by_top[top]], 1);
        renew(lists[by_row[0]], 2);
        return true;
    }
    // The likeliest token: a place among those that followed the token before, else an id. It becomes a candidate.
    template <class IO> u32 likeliest(IO& io, u32 id) {
        const int place = byte(io, 5, tail >> 4, there(id) ? where[id] : 127);
        const u32 top = place < size ? ids[place] : one(io, id);
        broken |= place >= size && there(top);
        if (!there(top)) {
            where[top] = u16(size);
            ids[size++] = top;
        }
        return top;
    }
};
}  // namespace

extern "C" {
void* signal_open(int vocab) { return new Model(vocab); }
void signal_close(void* model) { delete static_cast<Model*>(model); }

// Bytes written, or -1 where there is no room for them, -2 where an entry is none; ids and levels are brought into
// coded order.
__attribute__((flatten)) int64_t signal_encode(void* model, int64_t rows, int width, int32_t* n, int32_t* ids,
                                               uint8_t* levels, uint8_t* tails, int32_t* tokens, uint8_t* out,
                                               int64_t room) {
    Encoder io;
    for (int64_t t = 0, at = 0; t < rows; t++, at += width)
        if (!static_cast<Model*>(model)->code(io, n[t], ids + at, levels + at, tails[t], tokens[t])) return -2;
    io.finish();
    if (int64_t(io.out.size()) > room) return -1;
    std::memcpy(out, io.out.data(), io.out.size());
    return int64_t(io.out.size());
}

// 0, or -1 where the bytes are not such rows.
__attribute__((flatten)) int signal_decode(void* model, int64_t rows, int width, int32_t* n, int32_t* ids,
                                           uint8_t* levels, uint8_t* tails, int32_t* tokens, const uint8_t* in,
                                           int64_t size) {
    Decoder io(in, size);
    int32_t id[ENTRIES];
    u8 level[ENTRIES];
    for (int64_t t = 0; t < rows; t++) {
        if (!static_cast<Model*>(model)->code(io, n[t], id, level, tails[t], tokens[t])) return -1;
        if (n[t] > width || io.at > size) return -1;
        std::memcpy(ids + t * width, id, n[t] * sizeof(int32_t));
        std::memcpy(levels + t * width, level, n[t]);
    }
    return io.ended() ? 0 : -1;
}
}
