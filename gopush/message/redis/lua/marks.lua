-- What tells messages apart. Arguments: prefix, then keys. Gives for each: the head (two doubles, or '' where there is
-- none), then mid and mark of each message on end; a mark is '' where the message ends at no whole second.
local answers = {}
for at = 2, #args do
  local head = call('GET', head_name(args[at]))
  local marks = {}
  for _, member in ipairs(call('LRANGE', messages_name(args[at]), 0, -1)) do
    local mid, expires = struct.unpack('>dd', member)
    local whole = expires == math.floor(expires)
    marks[#marks + 1] = mid
    marks[#marks + 1] = whole and string.format('%.0f ', expires) .. redis.sha1hex(string.sub(member, 17)) or ''
  end
  answers[#answers + 1] = {head and string.sub(head, 1, 16) or '', marks}
end
return cmsgpack.pack(answers)
