-- Arguments: prefix, then keys. Gives the mids of each one's messages. A few messages are read at a time: a list may
-- hold more than a script should read.
local AT_ONCE = 32

local answers = {}
for at = 2, #args do
  local name, mids = messages_name(args[at]), {}
  for first = 0, call('LLEN', name) - 1, AT_ONCE do
    for _, member in ipairs(call('LRANGE', name, first, first + AT_ONCE - 1)) do
      mids[#mids + 1] = struct.unpack('>d', member)
    end
  end
  answers[#answers + 1] = mids
end
return cmsgpack.pack(answers)
