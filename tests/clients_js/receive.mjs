// Prints what it is given, a line each: `node receive.mjs URL KEY OPTIONS`.
import { subscribe } from "../../clients/js/gopush.mjs";

const [url, key, options] = process.argv.slice(2);
const say = what => process.stdout.write(JSON.stringify(what) + "\n");
const subscription = subscribe(url, key, {
  ...JSON.parse(options),
  onMessage: ({ msg, mid }) => say([msg.n, mid]),
  onState: state => say(state),
});
process.stdin.on("data", () => subscription.close());
process.stdin.on("end", () => process.exit());
