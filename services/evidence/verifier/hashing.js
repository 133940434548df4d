// SHA-256 and Ed25519, both by WebCrypto. What was computed once is remembered: receipts share most of it.

const remembered = new Map();

function once(key, work) {
  if (!remembered.has(key)) remembered.set(key, work());
  return remembered.get(key);
}

async function digest(algorithm, bytes) {
  return new Uint8Array(await crypto.subtle.digest(algorithm, bytes));
}

const sha256 = (bytes) => digest("SHA-256", bytes);
const leafHash = (entry) => sha256(concat(Uint8Array.of(0), entry));

function nodeHash(left, right) {
  const both = concat(Uint8Array.of(1), left, right);
  return once(`node ${hex(both)}`, () => sha256(both));
}

// Whether this browser has Ed25519, found out by a signature that holds and one that does not.
const PROBE = {
  key: "02d078ed6e6c0e67839ae6bf26c1f22484214bd560215bd5ee0941c0fc9bf46d",
  message: "646179626f6f6b",
  signature:
    "f6f5183f7e6a4ccc9ce48dd6e345a651a791079bc8851bb0ac83771440e197d1" +
    "719e2b89a295feb66c2e07f3ad201509d132ff8b15863aba6601e2b3b7cc9701",
};

async function hasEd25519() {
  try {
    const [key, message, signature] = [PROBE.key, PROBE.message, PROBE.signature].map(unhex);
    const good = await rawVerify(key, message, signature);
    signature[0] ^= 1;
    return good === true && (await rawVerify(key, message, signature)) === false;
  } catch {
    return false;
  }
}

async function rawVerify(key, message, signature) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
}

// Points of small order, the sign bit left out: libsodium refuses them as keys and as R, WebCrypto may not.
const SMALL_ORDER = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);
const FIELD = 2n ** 255n - 19n;

const littleEndian = (bytes) => BigInt(`0x${hex(bytes.toReversed())}`);

function isUsablePoint(bytes) {
  const point = Uint8Array.from(bytes);
  point[31] &= 0x7f;
  return !SMALL_ORDER.has(hex(point)) && littleEndian(point) < FIELD;
}

// Throws unless `signature` is one of `message` by `key`. Where Ed25519 is missing nothing is checked, and the
// caller says so: see `pack.js`.
async function verifyEd25519(state, key, message, signature, what) {
  if (key.length !== 32 || signature.length !== 64) fail(`${what}: not the size of an Ed25519 signature`);
  if (!isUsablePoint(key) || !isUsablePoint(signature.subarray(0, 32))) fail(`${what}: the signature does not verify`);
  if (!state.ed25519) {
    state.unchecked += 1;
    return;
  }
  const name = `ed25519 ${hex(key)} ${hex(signature)} ${hex(await sha256(message))}`;
  if (!(await once(name, () => rawVerify(key, message, signature)))) fail(`${what}: the signature does not verify`);
}
