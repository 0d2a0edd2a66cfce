-- How far logs have been taken over. Arguments: prefix, then keys. Gives for each its last and its highest trimmed mid, and
-- how many messages are there, as doubles, on end.
local answers = {}
for at = 2, #args do
  local head = call('GET', head_name(args[at]))
  local last, trimmed = 0, 0
  if head then
    last, trimmed = struct.unpack('>dd', head)
  end
  answers[#answers + 1] = struct.pack('>ddd', last, trimmed, call('LLEN', messages_name(args[at])))
end
return table.concat(answers)
