#: comments
nop # one ; ud2
/* two
ud2 */ nop; nop
// three ; ud2
/ four
.byte '#', ';'

#: a slash that divides
.byte 6/2, 7 / 2 # not a comment

#: strings
.ascii "a\n\t\"\\\101\x42#;/*", "b"
.asciz "c", "d"
.string "é"

#: characters
.byte 'a', 'b', '\n', '\\, '\'', '"', 'x

#: data of every size
.byte 1, -1, 255
.2byte 1
.short -2
.word 0xffff
.hword 3
.value 4
.4byte 5
.long -1, 0xffffffff, 0xffffffff81000000
.int 7
.8byte 8
.quad -1, 0xffffffffffffffff
.octa 1, -1, 0x112233445566778899aabbccddeeff00

#: space
.zero 3
.skip 2
.skip 2, 0x90
.space 1, -1
.fill 3
.fill 2, 4, 0x11223344
.fill 2, 8, 0x11223344
.fill 2, 2
.fill 0, 4, 1

#: space between labels
a: nop
    jmp last
b: .skip b-a, 0x90
    .skip 200
last: .fill last-b, 2, 1

#: alignment in code
nop
.balign 16
nop
.p2align 4, 0xcc
nop
.align 8
nop
.p2align 4,,3
nop
.p2align 4,,15
ret
.balign 1
.p2align 0

#: alignment in data
.data
.byte 1
.balign 8
.byte 2
.balign 4, 0xff
.2byte 3
.balignw 8, 0x1234
.byte 4
.balign 4
.p2alignl 4, 0x11223344
.byte 5

#: nops of every length
.set length, 1
.rept 127
.skip length, 0xcc
.balign 128
.set length, length + 1
.endr

#: more nops than fit a short jump
nop
.balign 512
nop

#: org
f: nop
.org f+0x10, 0x90
call f
.org f+0x20
nop
.org 0x30, 0xcc
ret
. = . + 4

#: org over code that grows
f: jz 1f
.org f+0x86, 0x90
ret
1: .org f+0x100, 0xcc

#: the location counter
nop
.quad .-1
jmp .
jmp .+2
.set here, .
nop
.quad .-here

#: numeric labels
1: nop
jmp 1b
jmp 1f
1: jmp 1b
10: jmp 10b
.quad 1f-1b
1: nop

#: set and equ
.set a, 5
.equ b, a*2
c = b+1
.byte a, b, c
.set a, a+1
.byte a
mov eax, a

#: set to a place
f: nop
.set g, f+1
.globl g
jmp g
.quad g

#: a number defined too late
mov eax, late
add rax, [rdi+late]
.set late, 5

#: conditions
.if SIZE == 80
.byte 1
.if ZERO
.byte 2
.else
.byte 3
.endif
.elseif SIZE
.byte 4
.else
.byte 5
.endif
.ifdef SIZE
.byte 6
.endif
.ifndef SIZE
.byte 7
.endif
.ifdef nothing
.byte 8
.endif
.ifeq ZERO
.byte 9
.endif

#: conditions on distances
a: push rbx
nop
b:
.if b-a == 2
.byte 1
.endif
.if . - a > 2
.byte 2
.endif

#: repetition
.rept 3
nop
.rept 2
.byte 1
.endr
.endr
.rept 0
ud2
.endr

#: short and near jumps
f: jmp 1f
.skip 126
1: jz 1f
.skip 127
1: jz f
jmp f
loop .
.skip 128
jnz 1b

#: a jump over an org
f: jz 1f
jmp 1f
nop
.org f+0x40
1: ret
.org f+0xff

#: every conditional jump
f:
jo f; jno f; jb f; jc f; jnae f; jae f; jnb f; jnc f; je f; jz f; jne f; jnz f; jbe f; jna f
ja f; jnbe f; js f; jns f; jp f; jpe f; jnp f; jpo f; jl f; jnge f; jge f; jnl f; jle f; jng f
jg f; jnle f
jo o; jno o; jb o; jc o; jnae o; jae o; jnb o; jnc o; je o; jz o; jne o; jnz o; jbe o; jna o
ja o; jnbe o; js o; jns o; jp o; jpe o; jnp o; jpo o; jl o; jnge o; jge o; jnl o; jle o; jng o
jg o; jnle o
.data
o: .byte 0

#: jumps by count
f: loop f
loope f
loopz f
loopne f
loopnz f
jrcxz f
jecxz f

#: jumps that are short
jmp short 1f
jz short 1f
1: nop

#: jumps around padding
jmp 1f
.skip 100
.balign 64
1: jz 2f
.balign 32
2: ret

#: a global target
.globl f
jmp f
call f
f: ret

#: a weak target
.weak f
jmp f
call f
f: ret

#: a weak symbol that nobody defines
.weak f
.quad f
mov eax, offset f

#: another section's target
jmp f
call f+1
jz f
.data
f: ret

#: a number for a target
call 0xffffffff81234567
jmp 0xffffffff81000010

#: calls through registers and memory
call rax
call [rax+8]
jmp r9
call qword ptr [rip+p]
p: .quad 0

#: addresses relative to rip
lea rax, [rip+t]
mov rax, [rip+t+8]
mov dword ptr [rip+t-4], 5
cmp byte ptr [rip+1f], 1
1: lea rax, t[rip]
lea rax, [rip+0x100]
.data
.quad 0
t: .quad 0

#: absolute addresses
mov rax, [t]
mov eax, dword ptr [t+4]
mov rax, t
add [t], rbx
mov rax, gs:[t]
mov rax, gs:0x28
mov qword ptr gs:[0x28], rax
.data
t: .quad 0

#: addresses as displacements
mov rax, [rdi+t]
mov rax, [t+rdi*8+8]
lea rax, t[rbx]
.data
t: .quad 0

#: addresses as constants
mov rax, offset t
movabs rax, offset t+8
push offset t
add rbx, offset t
cmp rax, offset t
mov qword ptr [rdi], offset t
.data
t: .quad 0

#: addresses of 64 bits
movabs rax, [t]
movabs [t], al
mov rax, [0x1122334455667788]
movabs eax, [0x10]
.data
t: .quad 0

#: addresses as data
.quad t, t+8, t-1, g
.long t-., g-.
g: .data
t: .quad t, g, .

#: distances as constants
a: nop
jmp c
.skip 200
c: mov eax, c-a
mov rax, c-a
add rbx, c-a
mov al, b-c
mov ecx, e-c
b: mov dx, c-a
sub rsp, c-a
e: ret
.word c-a, b-c
.long a-c

#: symbols
.globl f
.type f, @function
f: ret
.size f, .-f
.type o, @object
o: .quad 1
.size o, 8
.Lhidden: nop
.local l
l: nop
.global f
.type n, STT_NOTYPE
n:

#: sections
.section .hot, "ax", @progbits
nop
.balign 4
.data
.byte 1
.text
ret
.data
.byte 2
.bss
.balign 8
z: .skip 16
.section .hot
ret
.section .rodata
.quad z
.section .extra, "aw"
.byte 3

#: sections that take no memory
nop
.section .note.GNU-stack, "", @progbits
.byte 1

#: prefixes
rep movsb
rep; movsb
lock inc qword ptr [rdi]
lock
inc dword ptr [rax]
rep ret
repne scasb
cs nop
lock cmpxchg qword ptr gs:[rdi], rax
notrack jmp rax

#: upper case
MOV EAX, DWORD PTR [RBX+8]
.BYTE 1
Lea Rax, [Rip+F]
F: RET

#: several labels on a line
a: b: nop; c: ret; .quad c-a
  d : nop

#: words for operators
mov eax, 1 shl 3 or 1
mov eax, 7 and 3
mov eax, 7 mod 4

#: precedence
.quad 1+2*3, 1<<4+1, 1|2==3, 6&3|8, 1+2==3, -1>>60, 7%4*2, 2*3<<1, 5-3-1, 1&&0||1, 3!1, 5^1|2
.quad -7/2, -7%3, !0, !5, ~0, - -1, 1 == 1, 1 <> 1, 1 != 2, 2 >= 3, -1 < 0, (1+2)*3, 017, 0b101
.quad 0x7fffffffffffffff+1, -(1<<63), 0xffffffffffffffff>>1, 1<2<3, 0xffffffff81000000/16

#: stubs
.section .hot, "ax"
.balign 16, 0xcc
.globl xe_devm_add
.type xe_devm_add, @function
xe_devm_add:
    endbr64
    .byte 0x0f, 0x1f, 0x44, 0x00, 0x00      # fentry
    push rbp
    push rbx
    .org xe_devm_add + 0x8b - 5, 0x90
    call xe_devm_add
    hlt
    .org xe_devm_add + 0x100, 0xcc
    .size xe_devm_add, . - xe_devm_add
