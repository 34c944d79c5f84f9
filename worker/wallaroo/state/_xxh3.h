/* The hash of a key's bytes: XXH3, 64 bits, seed 0, of up to 240 bytes.
 *
 * Written after the specification by Yann Collet (xxhash_spec.md of the xxHash project); the tests
 * compare it to that project's own. It is here so that keys can be hashed without the interpreter.
 */

#define HASHED_MOST 240

static const unsigned char SECRET[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

#define PRIME64_1 0x9E3779B185EBCA87u
#define PRIME64_2 0xC2B2AE3D27D4EB4Fu
#define PRIME64_3 0x165667B19E3779F9u
#define PRIME_MX1 0x165667919E3779F9u
#define PRIME_MX2 0x9FB21C651E98DF25u

static inline uint64_t
word(const unsigned char *at)
{
    return read_little(at, 8);
}

static inline uint64_t
turned(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline uint64_t
reversed(uint64_t value)
{
    uint64_t result = 0;
    for (int i = 0; i < 8; i++) {
        result = result << 8 | (value >> (8 * i) & 255);
    }
    return result;
}

/* The two halves of the product of 64 by 64 bits, one xor the other. */
static inline uint64_t
folded(uint64_t one, uint64_t other)
{
    uint64_t a = one >> 32, b = one & 0xFFFFFFFFu, c = other >> 32, d = other & 0xFFFFFFFFu;
    uint64_t low = b * d, middle = a * d + (low >> 32), more = b * c + (middle & 0xFFFFFFFFu);
    uint64_t high = a * c + (middle >> 32) + (more >> 32);
    return high ^ (more << 32 | (low & 0xFFFFFFFFu));
}

static inline uint64_t
mixed(const unsigned char *data, int secret)
{
    return folded(word(data) ^ word(SECRET + secret), word(data + 8) ^ word(SECRET + secret + 8));
}

static inline uint64_t
spread(uint64_t value)
{
    value = (value ^ value >> 37) * PRIME_MX1;
    return value ^ value >> 32;
}

static inline uint64_t
spread_small(uint64_t value)
{
    value = (value ^ value >> 33) * PRIME64_2;
    value = (value ^ value >> 29) * PRIME64_3;
    return value ^ value >> 32;
}

/* `length` is at most HASHED_MOST. */
static uint64_t
hash_of(const unsigned char *data, size_t length)
{
    if (length == 0) {
        return spread_small(word(SECRET + 56) ^ word(SECRET + 64));
    }
    if (length <= 3) {
        uint64_t all = (uint64_t)data[length - 1] | (uint64_t)length << 8 | (uint64_t)data[0] << 16
                       | (uint64_t)data[length >> 1] << 24;
        return spread_small((read_little(SECRET, 4) ^ read_little(SECRET + 4, 4)) ^ all);
    }
    if (length <= 8) {
        uint64_t all = read_little(data + length - 4, 4) | read_little(data, 4) << 32;
        uint64_t value = word(SECRET + 8) ^ word(SECRET + 16) ^ all;
        value ^= turned(value, 49) ^ turned(value, 24);
        value *= PRIME_MX2;
        value ^= (value >> 35) + length;
        value *= PRIME_MX2;
        return value ^ value >> 28;
    }
    if (length <= 16) {
        uint64_t low = word(SECRET + 24) ^ word(SECRET + 32) ^ word(data);
        uint64_t high = word(SECRET + 40) ^ word(SECRET + 48) ^ word(data + length - 8);
        return spread(length + reversed(low) + high + folded(low, high));
    }
    uint64_t sum = length * PRIME64_1;
    if (length <= 128) {
        for (int i = (int)((length - 1) >> 5); i >= 0; i--) {
            sum += mixed(data + 16 * i, 32 * i);
            sum += mixed(data + length - 16 * i - 16, 32 * i + 16);
        }
        return spread(sum);
    }
    for (int i = 0; i < 8; i++) {
        sum += mixed(data + 16 * i, 16 * i);
    }
    sum = spread(sum);
    for (int i = 8; i < (int)(length >> 4); i++) {
        sum += mixed(data + 16 * i, 16 * (i - 8) + 3);
    }
    return spread(sum + mixed(data + length - 16, 119));
}
