-- Arguments: prefix, then keys. Gives the mids of each one's messages; where a name is strange, an error. A few messages
-- are read at a time: a list may hold more than a script should read.
local AT_ONCE = 32

local answers = {}
for at = 2, #args do
  local name, mids = messages_name(args[at]), {}
  for first = 0, call('LLEN', name) - 1, AT_ONCE do
    for _, member in ipairs(call('LRANGE', name, first, first + AT_ONCE - 1)) do
      mids[#mids + 1] = times_in(name, member)
    end
  end
  if strange ~= '' then
    return strange_error()
  end
  answers[#answers + 1] = mids
end
return cmsgpack.pack(answers)
