// Every JPEG and PNG below a folder to a .webp beside it, as fast as sharp goes.
//   node sharp.mjs DIR QUALITY METHOD CORES        node sharp.mjs --versions
// Images in flight: twice the cores, so that reading and writing never leave a core idle. libvips uses one thread
// for each image, which is its fastest setting for many small ones.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";

if (process.argv[2] === "--versions") {
  console.log(`sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}, libwebp ${sharp.versions.webp}`);
  process.exit(0);
}
const [dir, quality, effort, cores] = [process.argv[2], ...process.argv.slice(3).map(Number)];
sharp.concurrency(1);
sharp.cache(false);

const entries = await readdir(dir, { recursive: true, withFileTypes: true });
const paths = entries
  .filter((entry) => entry.isFile() && /\.(jpe?g|png)$/i.test(entry.name))
  .map((entry) => join(entry.parentPath, entry.name));
let next = 0;
async function lane() {
  while (next < paths.length) {
    const path = paths[next++];
    await sharp(path).webp({ quality, effort }).toFile(`${path}.webp`);
  }
}
await Promise.all(Array.from({ length: 2 * cores }, lane));
