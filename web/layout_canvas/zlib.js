// Packs bytes into zlib's form at once, which the browser's own packer only does later, and unpacks them.
//
// A text has to be ready when a stroke ends, because ComfyUI saves it then. So this packs by itself: repetitions within
// the last 32 kB (RFC 1951), of which the one found last is taken, in the one block with fixed codes.

const LONGEST = 258; // bytes of a repetition
const SHORTEST = 3;
const WINDOW = 32768;
const END = 256; // the sign after the last byte
const [LENGTHS, DISTANCES] = [steps(28, 4, 3), steps(30, 2, 1)];

/** First value and number of further bits of each code: in groups of so many codes, each twice as wide as the last. */
function steps(count, group, first) {
  const codes = [];
  for (let code = 0, value = first; code < count; code++) {
    const bits = Math.max(0, Math.floor(code / group) - 1);
    codes.push({ value, bits });
    value += 1 << bits;
  }
  return codes;
}

const reversed = (code, bits) => {
  let result = 0;
  for (let i = 0; i < bits; i++) result |= ((code >> i) & 1) << (bits - 1 - i);
  return result;
};

/** Code and number of bits of each sign, the first bit lowest. */
const SIGNS = Array.from({ length: 288 }, (_, sign) => {
  const [code, bits] =
    sign < 144
      ? [0x30 + sign, 8]
      : sign < 256
        ? [0x190 + sign - 144, 9]
        : sign < 280
          ? [sign - 256, 7]
          : [0xc0 + sign - 280, 8];
  return [reversed(code, bits), bits];
});

/** Which code a length or a distance has. */
function codeOf(codes, value) {
  let code = codes.length - 1;
  while (codes[code].value > value) code--;
  return code;
}

const LENGTH_CODES = Array.from({ length: LONGEST + 1 }, (_, length) => codeOf(LENGTHS, Math.max(SHORTEST, length)));

class Bits {
  constructor() {
    this.bytes = [0x78, 0x01];
    this.waiting = this.count = 0;
  }

  put(value, bits) {
    this.waiting |= value << this.count;
    this.count += bits;
    while (this.count >= 8) {
      this.bytes.push(this.waiting & 255);
      this.waiting >>>= 8;
      this.count -= 8;
    }
  }

  finish() {
    if (this.count) this.bytes.push(this.waiting & 255);
  }
}

export function pack(data) {
  const bits = new Bits();
  bits.put(1, 1); // the last block
  bits.put(1, 2); // with fixed codes
  const last = new Int32Array(WINDOW).fill(-1); // where three bytes that are like these were seen last
  for (let at = 0; at < data.length;) {
    const [length, distance] = repetition(data, at, last);
    if (length < SHORTEST) {
      bits.put(...SIGNS[data[at++]]);
      continue;
    }
    // A length of 258 has a code of its own, beyond those that count on.
    const code = LENGTH_CODES[length];
    bits.put(...SIGNS[length === LONGEST ? 285 : 257 + code]);
    if (length < LONGEST) bits.put(length - LENGTHS[code].value, LENGTHS[code].bits);
    const far = codeOf(DISTANCES, distance);
    bits.put(reversed(far, 5), 5);
    bits.put(distance - DISTANCES[far].value, DISTANCES[far].bits);
    at += length;
  }
  bits.put(...SIGNS[END]);
  bits.finish();
  const sum = adler(data);
  return Uint8Array.from([...bits.bytes, sum >>> 24, (sum >>> 16) & 255, (sum >>> 8) & 255, sum & 255]);
}

/** The longest of the repetitions that are tried: of the byte before, and of the place last seen. */
function repetition(data, at, last) {
  if (at + SHORTEST > data.length) return [0, 0];
  const hash = ((data[at] << 10) ^ (data[at + 1] << 5) ^ data[at + 2]) & (WINDOW - 1);
  const seen = last[hash];
  last[hash] = at;
  let best = [0, 0];
  for (const from of [at - 1, seen]) {
    if (from < 0 || at - from > WINDOW) continue;
    const most = Math.min(LONGEST, data.length - at);
    let length = 0;
    while (length < most && data[from + length] === data[at + length]) length++;
    if (length > best[0]) best = [length, at - from];
  }
  return best;
}

function adler(data) {
  let [one, two] = [1, 0];
  for (const value of data) {
    one = (one + value) % 65521;
    two = (two + one) % 65521;
  }
  return ((two << 16) | one) >>> 0;
}

export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** The bytes of a zlib stream in base64, which has to hold exactly `length` of them; a longer one is not read on. */
export async function unpack(text, length) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const reader = unpacked.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > length) {
      await reader.cancel();
      throw new Error("there are more values than the size says");
    }
    bytes.set(value, at);
    at += value.length;
  }
  if (at !== length) throw new Error("there are fewer values than the size says");
  return bytes;
}

/** What zlib's crc32 says of a text in UTF-8. */
export function checksum(text) {
  let sum = -1;
  for (const value of new TextEncoder().encode(text)) {
    sum ^= value;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return (sum ^ -1) >>> 0;
}
