-- Where logs end. Arguments: prefix, then keys. Gives last and highest trimmed mid of each as doubles, on end.
local none = struct.pack('>dd', 0, 0)
local answers = {}
for at = 2, #args do
  local head = call('GET', head_name(args[at]))
  answers[at - 1] = head and string.sub(head, 1, 16) or none
end
return table.concat(answers)
