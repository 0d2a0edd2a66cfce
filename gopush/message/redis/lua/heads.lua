-- Where logs end. Arguments: prefix, then keys. Gives the server's clock, then last and highest trimmed mid of each, as
-- doubles, on end.
local none = struct.pack('>dd', 0, 0)
local answers = {struct.pack('>d', now)}
for at = 2, #args do
  local head = call('GET', head_name(args[at]))
  answers[at] = head and string.sub(head, 1, 16) or none
end
return table.concat(answers)
