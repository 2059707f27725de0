// Entropy coding of signal rows: an adaptive binary range coder (as in LZMA) over integers only, so that bytes
// decode alike on every machine. coder.py holds the same model in plain Python; change both together.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {
constexpr int LIST = 96, SAMPLE = 255;

struct Bit { uint16_t p = 16384; uint16_t n = 0; };
int32_t RATE[32];
const bool ready = [] { for (int n = 0; n < 32; n++) RATE[n] = 131072 / (2 * n + 3); return true; }();

inline void learn(Bit& b, int bit, int most) {
    const int32_t rate = RATE[b.n];
    if (bit) b.p -= (uint32_t(b.p) * rate) >> 16;
    else b.p += ((32768u - b.p) * rate) >> 16;
    if (b.p < 32) b.p = 32;
    if (b.p > 32736) b.p = 32736;
    if (b.n < most) b.n++;
}

struct Encoder {
    uint64_t low = 0; uint32_t range = 0xFFFFFFFFu; uint8_t cache = 0; int64_t pending = 1;
    uint8_t* out; int64_t room, size = 0;
    void put(uint8_t c) { if (size < room) out[size] = c; size++; }
    void shift() {
        if (uint32_t(low) < 0xFF000000u || (low >> 32)) {
            uint8_t carry = uint8_t(low >> 32), c = cache;
            do { put(uint8_t(c + carry)); c = 0xFF; } while (--pending);
            cache = uint8_t(low >> 24);
        }
        pending++;
        low = (low & 0x00FFFFFFu) << 8;
    }
    int bit(Bit& b, int bit, int most) {
        const uint32_t bound = (range >> 15) * b.p;
        if (bit) { low += bound; range -= bound; } else range = bound;
        learn(b, bit, most);
        while (range < (1u << 24)) { range <<= 8; shift(); }
        return bit;
    }
    void finish() { for (int i = 0; i < 5; i++) shift(); }
    bool bad() const { return size > room; }
};

struct Decoder {
    const uint8_t* in; int64_t size, at = 0; uint32_t range = 0xFFFFFFFFu, code = 0;
    Decoder(const uint8_t* in, int64_t size) : in(in), size(size) { for (int i = 0; i < 5; i++) code = code << 8 | next(); }
    uint8_t next() { const uint8_t c = at < size ? in[at] : 0; at++; return c; }
    int bit(Bit& b, int, int most) {
        const uint32_t bound = (range >> 15) * b.p;
        int bit;
        if (code < bound) { range = bound; bit = 0; } else { code -= bound; range -= bound; bit = 1; }
        learn(b, bit, most);
        while (range < (1u << 24)) { range <<= 8; code = code << 8 | next(); }
        return bit;
    }
    bool bad() const { return at > size; }
};

struct Entry { uint32_t id; uint8_t level, seen; };

struct Model {
    int vocab, width, previous_tail = 0;
    int64_t context;
    uint32_t row = 0;
    std::vector<Bit> ids, counts, tails, flags, levels, sampled, steps, tokens;
    std::vector<uint32_t> stamp, mark;
    std::vector<std::vector<Entry>> lists;
    std::vector<Entry> fresh, hits, misses, scratch;
    std::vector<uint32_t> where;

    explicit Model(int vocab) : vocab(vocab), width(1), context(vocab) {
        while ((int64_t(1) << width) < vocab) width++;
        ids.resize(size_t(1) << width);
        counts.resize(256); tails.resize(16 * 256); flags.resize(2 * 16 * 16 * 16);
        levels.resize(8 * 32 * 256); sampled.resize(2); steps.resize(64 * 8); tokens.resize(256);
        stamp.assign(vocab, 0); mark.assign(vocab, 0); where.assign(vocab, 0);
        lists.resize(size_t(vocab) + 2);
    }
    template <class IO> int tree(IO& io, Bit* probs, int bits, int value, int most) {
        uint32_t node = 1;
        for (int i = bits - 1; i >= 0; i--) node = node << 1 | io.bit(probs[node], value >> i & 1, most);
        return int(node - (1u << bits));
    }

    // One row of `n` (id, level) entries, level 255 for a sample; entries come back in the order they are coded.
    template <class IO> void code(IO& io, int& n, int32_t* id, uint8_t* level, uint8_t& tail, int32_t& token) {
        constexpr bool encoding = std::is_same_v<IO, Encoder>;
        row++;
        n = tree(io, counts.data(), 8, n, 30);
        tail = uint8_t(tree(io, &tails[size_t(previous_tail >> 4) * 256], 8, tail, 20));
        previous_tail = tail;
        if (encoding) for (int k = 0; k < n; k++) { mark[id[k]] = row; where[id[k]] = level[k]; }
        hits.clear();
        for (int which = 0; which < 2; which++) {
            auto& list = lists[which ? vocab + 1 : context];
            for (size_t k = 0; k < list.size() && int(hits.size()) < n; k++) {
                const Entry e = list[k];
                if (stamp[e.id] == row) continue;
                stamp[e.id] = row;
                Bit& flag = flags[((which * 16 + std::min<size_t>(k >> 2, 15)) * 16 + e.seen) * 16 + (tail >> 4)];
                if (!io.bit(flag, encoding && mark[e.id] == row, 30)) continue;
                const int found = tree(io, &levels[size_t(tail >> 5) * 8192 + (e.level >> 3) * 256], 8, where[e.id], 20);
                hits.push_back({e.id, uint8_t(found), 0});
            }
        }
        misses.clear();
        if (encoding) {
            for (int k = 0; k < n; k++)
                if (stamp[id[k]] != row) misses.push_back({uint32_t(id[k]), level[k], 0});
            std::sort(misses.begin(), misses.end(), [](const Entry& a, const Entry& b) {
                return a.level != b.level ? a.level < b.level : a.id < b.id; });
        } else misses.resize(n - hits.size());
        int now = 0, was = 0;
        for (auto& e : misses) {
            was = was || io.bit(sampled[0], e.level == SAMPLE, 30);
            if (was) e.level = SAMPLE;
            else {
                for (int i = 0; now < 254 && io.bit(steps[(now >> 2) * 8 + std::min(i, 7)], now < e.level, 30); i++) now++;
                e.level = uint8_t(now);
            }
            e.id = uint32_t(tree(io, ids.data(), width, int(e.id), 30));
            if (e.id >= uint32_t(vocab)) e.id = 0;
        }
        fresh = hits;
        fresh.insert(fresh.end(), misses.begin(), misses.end());
        int place = n;
        if (encoding) for (int k = 0; k < n; k++) if (int(fresh[k].id) == token) place = k;
        place = tree(io, tokens.data(), 8, place, 30);
        if (place < n) token = int32_t(fresh[place].id);
        else { token = tree(io, ids.data(), width, token, 30); if (token >= vocab) token = 0; }
        for (int k = 0; k < n; k++) { id[k] = int32_t(fresh[k].id); level[k] = fresh[k].level; }
        std::sort(fresh.begin(), fresh.end(), [](const Entry& a, const Entry& b) {
            return a.level != b.level ? a.level < b.level : a.id < b.id; });
        for (const auto& e : fresh) mark[e.id] = row;
        renew(lists[context]);
        renew(lists[vocab + 1]);
        context = token;
    }

    // What was said now comes first, likeliest first; the rest moves back and falls off the end.
    void renew(std::vector<Entry>& list) {
        for (const auto& e : list) where[e.id] = e.seen;
        for (const auto& e : list) stamp[e.id] = 0xFFFFFFFFu;
        scratch.clear();
        for (auto e : fresh) {
            const uint32_t before = stamp[e.id] == 0xFFFFFFFFu ? where[e.id] : 0;
            scratch.push_back({e.id, e.level, uint8_t((before << 1 | 1) & 15)});
        }
        for (const auto& e : list) stamp[e.id] = 0;
        for (const auto& e : list)
            if (scratch.size() < LIST && mark[e.id] != row) scratch.push_back({e.id, e.level, uint8_t(e.seen << 1 & 15)});
        list.swap(scratch);
    }
};
}  // namespace

extern "C" {
void* signal_open(int vocab) { return new Model(vocab); }
void signal_close(void* model) { delete static_cast<Model*>(model); }

// Bytes written, or -1 where there is no room for them; ids and levels are brought into coded order.
int64_t signal_encode(void* model, int64_t rows, int width, int32_t* n, int32_t* ids, uint8_t* levels, uint8_t* tails,
                      int32_t* tokens, uint8_t* out, int64_t room) {
    Encoder io;
    io.out = out; io.room = room;
    for (int64_t t = 0; t < rows; t++)
        static_cast<Model*>(model)->code(io, n[t], ids + t * width, levels + t * width, tails[t], tokens[t]);
    io.finish();
    return io.bad() ? -1 : io.size;
}

// 0, or -1 where the bytes do not fit the rows.
int signal_decode(void* model, int64_t rows, int width, int32_t* n, int32_t* ids, uint8_t* levels, uint8_t* tails,
                  int32_t* tokens, const uint8_t* in, int64_t size) {
    Decoder io(in, size);
    std::vector<int32_t> id(256);
    std::vector<uint8_t> level(256);
    for (int64_t t = 0; t < rows; t++) {
        static_cast<Model*>(model)->code(io, n[t], id.data(), level.data(), tails[t], tokens[t]);
        if (n[t] > width || io.bad()) return -1;
        std::memcpy(ids + t * width, id.data(), n[t] * sizeof(int32_t));
        std::memcpy(levels + t * width, level.data(), n[t]);
    }
    return 0;
}
}
