-- Stands before every script: its one argument, a list packed by msgpack, and the server's clock.
--
-- Mids are doubles here: exact, as multiples of 16 below 2^57 are; only their text needs care (%.0f).
-- All names expire:
--   h:<key>        string: last mid, highest trimmed mid, when to look for expired messages, end of m:<key>, and bytes
--                  of its largest body (doubles; the last one is missing where an older gopush wrote it)
--   m:<key>        list, mids ascending: mid and expiry (doubles), then the body
--   i:<key>\0<id>  string: mid and previous mid (doubles) of the first append under a publisher's id
--   o:<id>         string: for each key that was pushed to under an own id of web's: key, \0, mid and previous mid
--                  (doubles) of the first append; then when this name ends (double)
--   store          string: what tells this store from all others; it is renewed all the time
--   rights:<hex>   a new connection tries on it what its user may do, and deletes it
--   t:<key>        sorted set: score = when the token ends, member = its digest
local call = redis.call
local args = cmsgpack.unpack(ARGV[1])
local prefix = args[1]
local time = call('TIME')
local now = time[1] + time[2] / 1000000

local function head_name(key) return prefix .. 'h:' .. key end
local function largest_of(head) return #head >= 40 and struct.unpack('>d', head, 33) or math.huge end
local function messages_name(key) return prefix .. 'm:' .. key end
local function own_name(id) return prefix .. 'o:' .. id end
local function tokens_name(key) return prefix .. 't:' .. key end
