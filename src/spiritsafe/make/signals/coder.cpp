// Entropy coding of signal rows: an adaptive binary range coder over integers only, so that bytes decode alike on
// every machine. plain.py holds the same model in plain Python; change both together.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {
using u8 = uint8_t; using u16 = uint16_t; using u32 = uint32_t; using u64 = uint64_t;
constexpr int LIST = 96, LISTS = 3, ENTRIES = 256, CANDIDATES = LISTS * LIST + 1, SAMPLE = 255, LAST = 254;
constexpr int SLOW = 250, FAST = 100;

int32_t RATE[256], SHARE[256];
u8 KIND[256];
const bool ready = [] {
    for (int n = 0; n < 256; n++) {
        RATE[n] = 65536 / (2 * n + 3);
        SHARE[n] = 1024 / (n + 1);
        KIND[n] = u8(1 + 2 * std::min(3, (__builtin_popcount(n) + 1) / 2) + (n & 1));
    }
    return true;
}();

// The probability of 1 in 1/65536, and how often it was used. It stays within 32 and 65504.
struct Cell { u32 both = 32768u << 16; u32 p() const { return both >> 16; } };

inline void learn(Cell& c, int bit, u32 most) {
    const int32_t p = int32_t(c.both >> 16);
    const u32 n = c.both & 0xFFFF;
    c.both = u32(p + (((bit ? 65504 : 32) - p) * RATE[n] >> 15)) << 16 | (n + (n < most));
}

struct Encoder {
    u64 low = 0, range = ~u64(0);
    std::vector<u8> out;
    void word() { for (int i = 0; i < 4; i++, low <<= 8) out.push_back(u8(low >> 56)); }
    void add(u64 what) {
        low += what;
        if (low < what) for (size_t i = out.size(); i && ++out[--i] == 0;);
    }
    int bit(Cell& c, int bit, u32 most) {
        const u64 bound = (range >> 16) * c.p();
        if (bit) range = bound;
        else { add(bound); range -= bound; }
        if (range < u64(1) << 32) { word(); range <<= 32; }
        learn(c, bit, most);
        return bit;
    }
    void finish() { add(0xFFFFFFFFu); word(); }
};

struct Decoder {
    const u8* in; int64_t size, at = 0; u64 code = 0, range = ~u64(0);
    Decoder(const u8* in, int64_t size) : in(in), size(size) { word(); word(); }
    __attribute__((noinline)) void word() { for (int i = 0; i < 4; i++, at++) code = code << 8 | (at < size ? in[at] : 0); }
    int bit(Cell& c, int, u32 most) {
        const u64 bound = (range >> 16) * c.p();
        const int bit = code < bound;
        const u64 zero = u64(bit) - 1;  // all ones for a 0: no branch that would be guessed wrong
        code -= bound & zero;
        range = (bound & ~zero) | ((range - bound) & zero);
        if (__builtin_expect(range < u64(1) << 32, 0)) { word(); range <<= 32; }
        learn(c, bit, most);
        return bit;
    }
};

// Tokens of earlier rows of one kind: their last level, and in which of the last eight rows they were.
struct List { u32 id[LIST]; u8 level[LIST], past[LIST]; int num = 0, hand = 0; };
struct Candidate { u32 id; u16 context; u8 level, from, in, now; };
struct Entry { u32 id; u8 level, in; u16 candidate; };

struct Model {
    int vocab, width = 1, blocks, num = 0, tail = 0, some = 0, last = 0, shift = 0, shifted = 0, size = 0;
    u64 row = 0;
    bool broken = false;
    u32 context;
    std::vector<Cell> counts, tails, lasts, tops, flags, levels, ids, above, places, bits;
    std::vector<List> lists;
    std::vector<u32> by_token, by_top, by_row;
    std::vector<u64> where;
    Candidate cand[CANDIDATES];
    Entry found[ENTRIES];
    u16 hits[CANDIDATES];
    u8 wanted[CANDIDATES] = {}, slot[LISTS][CANDIDATES] = {};

    explicit Model(int vocab) : vocab(vocab), context(vocab) {
        while ((int64_t(1) << width) < vocab) width++;
        blocks = (width + 3) / 4;
        counts.resize(256); tails.resize(16 * 256); lasts.resize(16 * 256); tops.resize(16 * 128); flags.resize(4096);
        levels.resize(16 * 16 + 16 * 256 + 16 * 256 + 4 * 8 * 8 * 3 * 32);
        above.resize(32 * 64); places.resize(16 * 256); bits.resize(8);
        ids.resize(size_t(16) << (4 * blocks - 3));
        lists.resize(1); lists.reserve(1 << 14);
        by_token.assign(size_t(vocab) + 1, 0); by_top.assign(vocab, 0); by_row.assign(1, 0);
        where.assign(vocab, 0);
    }

    template <class IO> int tree(IO& io, Cell* cells, int bits, int value, int most) {
        u32 node = 1;
        for (int i = bits - 1; i >= 0; i--) node = node << 1 | u32(io.bit(cells[node], value >> i & 1, most));
        return int(node - (1u << bits));
    }
    // The cell of a node of the tree of ids; four levels lie together in memory.
    Cell& at(u32 node, int depth) {
        const int under = depth & 3;
        return ids[size_t(node >> under) << 4 | 1u << under | (node & ((1u << under) - 1))];
    }
    template <class IO> u32 down(IO& io, u32 node, int depth, u32 id) {
        for (; depth < width; depth++) node = node << 1 | u32(io.bit(at(node, depth), id >> (width - 1 - depth) & 1, SLOW));
        node -= 1u << width;
        broken |= node >= u32(vocab);
        return node < u32(vocab) ? node : 0;
    }
    // An id not below `before`, with `left` to come: along the path of `before` a 0 is impossible where that has a 1.
    template <class IO> u32 next(IO& io, u32 id, u32 before, int left) {
        u32 node = 1;
        for (int depth = 0; depth < width; depth++) {
            const int least = before >> (width - 1 - depth) & 1;
            int bit = 1;
            if (!least) bit = io.bit(above[std::min(left, 31) << 6 | (depth < 5 ? node : 32u + u32(depth))], id >> (width - 1 - depth) & 1, FAST);
            learn(at(node, depth), bit, SLOW);
            node = node << 1 | u32(bit);
            if (bit != least) return down(io, node, depth + 1, id);
        }
        return before;
    }
    // A level by its distance from `from`, or itself where it is out of reach.
    template <class IO> int near(IO& io, Cell* cells, int bits, int level, int from) {
        const int all = (1 << bits) - 1, wanted = level - from;
        const int found = tree(io, cells, bits, wanted < 0 || wanted > all ? all : wanted, FAST);
        if (found < all) return std::min(std::max(from + found, 0), LAST);
        return tree(io, &levels[256 + (tail >> 4) * 256], 8, level, FAST);
    }
    template <class IO> int sampled(IO& io, int kind, int level) { return some && io.bit(bits[kind], level == SAMPLE, FAST); }
    template <class IO> int new_level(IO& io, int level) {
        if (sampled(io, 4, level)) return SAMPLE;
        return std::max(last - near(io, &levels[(tail >> 4) * 16], 4, last - level, 0), 0);
    }
    template <class IO> int known_level(IO& io, const Candidate& c, int level) {
        if (sampled(io, 2 + (c.level == SAMPLE), level)) return SAMPLE;
        if (c.level == SAMPLE) return std::max(last - near(io, &levels[(tail >> 4) * 16], 4, last - level, 0), 0);
        const int guess = std::min(std::max(c.level + (shift * SHARE[shifted] >> 10), 0), last);
        const int kind = ((c.from * 8 + std::min(guess >> 4, 7)) * 8 + std::min(last - guess, 7)) * 3 + std::min((shifted + 2) / 3, 2);
        const int found = near(io, &levels[8448 + kind * 32], 5, level, guess - 15);
        shift += found - c.level;
        shifted++;
        return found;
    }

    List& list(std::vector<u32>& lists_of, u32 key) {
        if (!lists_of[key]) { lists_of[key] = u32(lists.size()); lists.emplace_back(); }
        return lists[lists_of[key]];
    }
    bool there(u32 id) const { return where[id] >> 16 == row; }
    void gather(const List& list, int which, int weight) {
        for (int k = 0; k < list.num; k++) {
            const u64 seen = where[list.id[k]];
            const bool known = seen >> 16 == row;
            const int i = known ? int(seen & 0xFFFF) : size;
            Candidate& c = cand[i];
            where[list.id[k]] = row << 16 | u64(i);
            size += !known;
            c.id = list.id[k];
            c.context = u16((known ? c.context : 0) + KIND[list.past[k]] * weight);
            const bool keep = known && which == 2 && c.in;
            const bool both = known && which == 1 && c.in && std::max(c.level, list.level[k]) < SAMPLE;
            c.level = both ? u8((c.level + list.level[k] + 1) / 2) : keep ? c.level : list.level[k];
            c.from = both ? u8(LISTS) : keep ? c.from : u8(which);
            c.in = u8((known ? c.in : 0) | 1 << which);
            slot[which][i] = u8(k);
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
        for (int i = 0, k = list.hand < list.num ? list.hand : 0; i < list.num && num_free < num_fresh; i++, k = k + 1 == list.num ? 0 : k + 1) {
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
        row++;
        size = shift = shifted = 0;
        if (encoding && (u32(token) >= u32(vocab) || std::any_of(id, id + n, [&](int32_t i) { return u32(i) >= u32(vocab); }))) return false;
        if (!io.bit(bits[0], n == num, FAST)) n = tree(io, counts.data(), 8, n, FAST); else n = num;
        num = n;
        tail = tail_ = u8(tree(io, &tails[(tail >> 4) * 256], 8, tail_, FAST));
        if (n && !entries(io, n, id, level)) return false;
        int place = n;
        if (encoding) for (int k = 0; k < n; k++) if (found[k].id == u32(token)) place = k;
        place = tree(io, &places[(tail >> 4) * 256], 8, place, FAST);
        token = int32_t(place < n ? found[place].id : down(io, 1, 0, u32(token)));
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
        some = io.bit(bits[1], encoding && std::any_of(level, level + n, [](u8 l) { return l == SAMPLE; }), FAST);
        last = tree(io, &lasts[(tail >> 4) * 256], 8, most, FAST);
        list(by_row, 0);
        const u32 from = by_token[context] ? by_token[context] : (list(by_token, context), by_token[context]);
        gather(lists[from], 0, 81);
        const u32 top = likeliest(io, encoding ? u32(id[best]) : 0);
        list(by_top, top);
        gather(lists[by_top[top]], 1, 9);
        gather(lists[by_row[0]], 2, 1);
        const int first = int(where[top] & 0xFFFF);
        found[0] = {top, u8(tree(io, &levels[4352 + (tail >> 4) * 256], 8, encoding ? level[best] : 0, FAST)), cand[first].in, u16(first)};
        if (encoding) {
            for (int i = 0; i < size; i++) cand[i].now = 0;
            for (int k = 0; k < n; k++) if (there(u32(id[k]))) { const int i = int(where[id[k]] & 0xFFFF); cand[i].now = 1; wanted[i] = level[k]; }
        }
        int got = 1, hit = 0;
        const int kind = tail >> 5 < 2 ? tail >> 5 : tail < 128 ? 2 : 3;
        for (int i = 0; i < size && got + hit < n; i++) {
            if (i == first) continue;
            hits[hit] = u16(i);
            hit += io.bit(flags[(cand[i].context * 4 + kind) & 4095], cand[i].now, FAST);
        }
        for (int k = 0; k < hit; k++) {
            const Candidate& c = cand[hits[k]];
            found[got++] = {c.id, u8(known_level(io, c, wanted[hits[k]])), c.in, hits[k]};
        }
        const int known = got;
        if (encoding) {
            for (int k = 0; k < n; k++) if (!there(u32(id[k])) && got < n) found[got++] = {u32(id[k]), level[k], 0, 0};
            if (got < n) return false;
            std::sort(found + known, found + n, [](const Entry& a, const Entry& b) { return a.id < b.id; });
        }
        for (int k = known; k < n; k++) {
            found[k].id = next(io, found[k].id, k > known ? found[k - 1].id : 0, n - k);
            if (there(found[k].id) || (k > known && found[k].id == found[k - 1].id)) return false;
        }
        for (int k = known; k < n; k++) found[k] = {found[k].id, u8(new_level(io, found[k].level)), 0, 0};
        renew(lists[from], 0);
        renew(lists[by_top[top]], 1);
        renew(lists[by_row[0]], 2);
        return true;
    }
    // The likeliest token: a place among those that followed the token before, else an id. It becomes a candidate.
    template <class IO> u32 likeliest(IO& io, u32 id) {
        const int place = tree(io, &tops[(tail >> 4) * 128], 7, there(id) ? int(where[id] & 0xFFFF) : 127, FAST);
        const u32 top = place < size ? cand[place].id : down(io, 1, 0, id);
        broken |= place >= size && there(top);
        if (!there(top)) {
            cand[size] = {top, 0, 0, 0, 0, 0};
            where[top] = row << 16 | u64(size++);
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
int64_t signal_encode(void* model, int64_t rows, int width, int32_t* n, int32_t* ids, uint8_t* levels, uint8_t* tails,
                      int32_t* tokens, uint8_t* out, int64_t room) {
    Encoder io;
    for (int64_t t = 0; t < rows; t++)
        if (!static_cast<Model*>(model)->code(io, n[t], ids + t * width, levels + t * width, tails[t], tokens[t])) return -2;
    io.finish();
    if (int64_t(io.out.size()) > room) return -1;
    std::memcpy(out, io.out.data(), io.out.size());
    return int64_t(io.out.size());
}

// 0, or -1 where the bytes are not such rows.
int signal_decode(void* model, int64_t rows, int width, int32_t* n, int32_t* ids, uint8_t* levels, uint8_t* tails,
                  int32_t* tokens, const uint8_t* in, int64_t size) {
    Decoder io(in, size);
    int32_t id[ENTRIES];
    u8 level[ENTRIES];
    for (int64_t t = 0; t < rows; t++) {
        if (!static_cast<Model*>(model)->code(io, n[t], id, level, tails[t], tokens[t])) return -1;
        if (n[t] > width || io.at > size + 4) return -1;
        std::memcpy(ids + t * width, id, n[t] * sizeof(int32_t));
        std::memcpy(levels + t * width, level, n[t]);
    }
    return io.at == size + 4 ? 0 : -1;
}
}
